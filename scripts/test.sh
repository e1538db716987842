#!/usr/bin/env bash
# Runs the tests and does all the set-up they need: bash scripts/test.sh [pytest arguments]
set -euo pipefail
source "$(dirname "$0")/venv.sh"

use_venv test
exec "$python" -m pytest -n 2 "$@"
