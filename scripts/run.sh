#!/usr/bin/env bash
# Runs an experiment and does all the set-up it needs: bash scripts/run.sh NAME [--flags]
set -euo pipefail
source "$(dirname "$0")/venv.sh"

name=${1:-}
if [ -z "$name" ] || [ ! -f "configs/$name.py" ] || [ ! -f "experiments/$name.py" ]; then
  [ -z "$name" ] || echo "error: no experiment named $name" >&2
  echo "usage: bash scripts/run.sh NAME [--flags], where NAME is one of:" >&2
  for config in configs/*.py; do
    other=$(basename "$config" .py)
    if [ -f "experiments/$other.py" ]; then echo "  $other" >&2; fi
  done
  exit 2
fi
shift
use_venv experiments
# A data set that is neither installed nor cached is fetched into the cache.
SUBSPACE_JAX_FETCH=1 exec "$python" -m "experiments.$name" "$@"
