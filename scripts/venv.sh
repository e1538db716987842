# Sourced by run.sh and test.sh: `use_venv EXTRA` sets $python to an interpreter that has this
# project with that extra. It is the active virtual environment's, or that of .venv, made once.

cd "$(dirname "${BASH_SOURCE[0]}")/.."

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$candidate"
      return
    fi
  done
  echo "error: no Python 3.11 or newer is on the PATH" >&2
  return 1
}

use_venv() {
  local extra=$1 venv=${VIRTUAL_ENV:-}
  if [ -z "$venv" ] && [ "${CONDA_DEFAULT_ENV:-base}" != base ]; then venv=$CONDA_PREFIX; fi
  if [ -z "$venv" ]; then
    venv=$PWD/.venv
    if [ ! -x "$venv/bin/python" ]; then
      echo "making the virtual environment .venv" >&2
      if command -v uv >/dev/null; then
        uv venv --quiet --seed --python '>=3.11' "$venv"
      else
        local base
        base=$(find_python)
        "$base" -m venv "$venv" || {
          rm -rf "$venv"
          echo "error: $base cannot make virtual environments (Debian: apt install python3-venv)" >&2
          return 1
        }
      fi
    fi
  fi
  python=$venv/bin/python
  # The stamp says what was installed, from which clone; it is written last.
  local stamp=$venv/.subspace_jax-$extra
  if ! { pwd; cat pyproject.toml; } | cmp -s - "$stamp"; then
    echo "installing subspace-jax[$extra] into $venv (once, about a minute)" >&2
    if command -v uv >/dev/null; then
      uv pip install --quiet --python "$python" --editable ".[$extra]"
    else
      "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
    fi
    { pwd; cat pyproject.toml; } >"$stamp"
  fi
}
