#!/bin/sh
# workers.sh PYTEST...: runs pytest with one worker per processor, each in namespaces of its own.
#
# A test that counts what is on the node (the host oracle) sees only its own worker's doing. Tests of
# one file stay together, so that they share the daemon of that file.
set -eu

here=$(dirname "$0")
workers=${NODED_TEST_WORKERS:-$(nproc)}
python=$1
shift
exec "$python" -m pytest --dist loadfile --tx "$workers*popen//python=$here/isolate.sh $python" "$@"
