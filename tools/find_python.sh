#!/usr/bin/env bash
# Prints the Python that the Makefile sets the project up with: find_python.sh [INTERPRETER]
#
# Without an argument: the first suitable one on PATH, else one that uv fetches into .uv/. Candidates
# are run, because version managers put launchers on PATH that fail for versions not selected.
# Where there is none, the last line says what to do, the exit code is 2, and nothing is left behind.
set -euo pipefail
cd "$(dirname "$0")/.."

ON_PATH=(python3.12 python3.11 python3.13 python3.10 python3)
UV_VERSION=0.13.9
FETCHED=3.12

fail() {
  echo "$1" >&2
  exit 2
}

# Prints the path of a CPython 3.10 to 3.13 that can make a virtual environment. The base
# interpreter, as the one in an activated .venv/ disappears when that is made anew.
suitable() {
  "$1" -c '
import ensurepip, os, sys, venv
if sys.implementation.name != "cpython" or not (3, 10) <= sys.version_info < (3, 14):
    sys.exit(1)
if sys.prefix != sys.base_prefix and sys.version_info < (3, 11):  # whose _base_executable is its own
    print(os.path.join(sys.base_prefix, "bin", "python3.10"))
else:
    print(sys._base_executable)' 2>/dev/null
}

# Prints the path of uv: the one on PATH, else installed into .uv/ by any Python that can.
find_uv() {
  local name
  command -v uv && return
  for name in python3 python; do
    if "$name" -m pip install --target .uv/package "uv==$UV_VERSION" ||
      { "$name" -m venv .uv/package && .uv/package/bin/python -m pip install "uv==$UV_VERSION"; }
    then
      echo "$PWD/.uv/package/bin/uv" >&3
      return
    fi
  done 3>&1 >/dev/null 2>&1
  return 1
}

# Prints the path of a Python that uv fetches into .uv/.
fetch() {
  local uv
  uv="$(find_uv)" || return 1
  export UV_PYTHON_INSTALL_DIR="$PWD/.uv/python"
  "$uv" python install --no-bin "$FETCHED" >&2 || return 1
  suitable "$("$uv" python find --managed-python "$FETCHED")"
}

if [ $# -gt 0 ]; then
  suitable "$1" || fail "$1 is no Python 3.10 to 3.13 with the modules venv and ensurepip"
  exit
fi
for name in "${ON_PATH[@]}"; do
  suitable "$name" && exit
done
echo "no suitable Python on PATH; fetching Python $FETCHED with uv into .uv/" >&2
fetch && exit
rm -rf .uv
fail "Python 3.10 to 3.13 with the modules venv and ensurepip is missing, and uv could not fetch \
Python $FETCHED; install it (Debian: apt install python3-venv) or name it: make PYTHON=/path/to/python"
