#!/bin/sh
# Rewrites requirements.lock and requirements-dev.lock from pyproject.toml: exact versions for
# every supported Python, a hash for every file, no registry address inside.
# lock.sh --upgrade takes the newest versions instead of keeping those already locked.
# The resolver (uv) lives in build/ and is no dependency of anything else.
set -eu
cd "$(dirname "$0")/../.."

venv=build/lock-venv
if [ ! -x "$venv/bin/uv" ]; then
    "$(packaging/setup/python.sh)" -m venv "$venv"
    "$venv/bin/pip" --disable-pip-version-check install --quiet uv
fi

compile() {
    output=$1
    shift
    # setuptools is the build backend: with it in the lock, noded and the plugins are installed
    # without build isolation, so that nothing outside the lock is ever downloaded.
    echo 'setuptools>=77' | "$venv/bin/uv" pip compile --quiet --universal --python-version 3.11 \
        --generate-hashes --annotation-style line --custom-compile-command 'make lock' \
        --output-file "$output" pyproject.toml - "$@"
}

if [ "${1:-}" = --upgrade ]; then
    rm -f requirements.lock requirements-dev.lock
fi
compile requirements-dev.lock --extra dev
compile requirements.lock --constraints requirements-dev.lock
