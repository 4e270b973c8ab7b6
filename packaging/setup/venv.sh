#!/bin/sh
# venv.sh runtime|dev: .venv with exactly the locked packages, noded and its plugins (editable).
# A stamp holds a checksum of all that went in, so a second run costs milliseconds.
set -eu
cd "$(dirname "$0")/../.."
kind=$1
case $kind in
    runtime) lock=requirements.lock ;;
    dev) lock=requirements-dev.lock ;;
    *) echo "usage: venv.sh runtime|dev" >&2; exit 2 ;;
esac
venv=.venv
projects='. plugins/runc plugins/gvisor plugins/kata'

checksum() { # of the lock $1, of everything that metadata comes from, and of this directory's path
    {
        pwd -P
        cat "$1" pyproject.toml plugins/*/pyproject.toml packaging/setup/venv.sh
    } | cksum
}

up_to_date() { [ "$(cat "$venv/stamp-$1" 2>/dev/null)" = "$(checksum "$2")" ]; }

works() { "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

if works; then
    # The development environment holds all that running needs.
    if up_to_date "$kind" "$lock" || up_to_date dev requirements-dev.lock; then
        exit 0
    fi
fi
if [ -e "$venv" ] && [ ! -w "$venv" ]; then
    echo "$PWD/$venv belongs to another user: remove it as that user, or run this command as that user." >&2
    exit 1
fi
python=$(packaging/setup/python.sh)
if ! works; then
    echo "Making $venv with $("$python" --version) ($python)"
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi
rm -f "$venv"/stamp-*
echo "Installing the packages of $lock into $venv"
pip() { PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore "$venv/bin/python" -m pip --quiet --no-input "$@"; }
pip install --require-hashes --no-deps --requirement "$lock"
editable=
for project in $projects; do
    editable="$editable --editable $project"
done
# shellcheck disable=SC2086 # a list of options
pip install --no-deps --no-build-isolation $editable
checksum "$lock" >"$venv/stamp-$kind"
