#!/usr/bin/env bash
# What has to hold before a commit: format, lint, types, tests.
set -euo pipefail
source "$(dirname "$0")/venv.sh"

use_venv test
"$python" -m ruff format --check .
"$python" -m ruff check .
"$python" -m pyright
"$python" scripts/readme.py --check
exec "$python" -m pytest -n 2 "$@"
