#!/bin/sh
# workers.sh PYTHON ARGUMENT...: runs pytest in workers, each in namespaces of its own.
#
# Three workers for two processors: the tests wait for programs most of their time. A test that counts
# what is on the node (the host oracle) sees only its own worker's doing. Tests of one file stay together,
# so that they share the daemon of that file; files are begun in the order that conftest.py puts them in.
set -eu

here=$(dirname "$0")
workers=${NODED_TEST_WORKERS:-$((($(nproc) * 3 + 1) / 2))}
python=$1
shift
exec "$python" -m pytest --dist loadfile --no-loadscope-reorder \
    --tx "$workers*popen//python=$here/isolate.sh $python" "$@"
