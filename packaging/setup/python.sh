#!/bin/sh
# Prints the path of a Python >= 3.11 that can make virtual environments: $PYTHON, else python3,
# else the newest python3.N on PATH. Explains what to install when there is none.
set -u

usable() {
    "$1" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    path=$(command -v "$candidate" 2>/dev/null) || continue
    if usable "$path"; then
        echo "$path"
        exit 0
    fi
done

cat >&2 <<'MESSAGE'
noded needs Python 3.11 or newer with the venv module, and found none on PATH.
On Debian and Ubuntu: apt-get install python3 python3-venv
(on releases whose python3 is older, also: apt-get install python3.11 python3.11-venv)
To use a Python that is not on PATH: make PYTHON=/path/to/python3 ...
MESSAGE
exit 1
