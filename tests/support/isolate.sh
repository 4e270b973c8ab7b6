#!/bin/sh
# isolate.sh COMMAND...: as root, runs a command in mount, network and PID namespaces of its own.
#
# The tests make mounts, bridges, packet filter rules and orphaned processes. Here all of that is
# apart from the machine's own, so that the host oracle sees exactly what the tests did, and the
# kernel removes whatever a killed test run leaves. Without root, or with NODED_TEST_ON_HOST=1, the
# command runs as it is.
set -eu

if [ "$(id -u)" != 0 ] || [ -n "${NODED_TEST_ON_HOST:-}" ]; then
    exec "$@"
fi

inside='
set -eu
ip link set lo up
# A sysfs mount shows the network devices of the namespace that made it: mount it anew, with the
# cgroups of the old one.
keep=$(mktemp -d)
mount --rbind /sys/fs/cgroup "$keep"
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
mount --rbind "$keep" /sys/fs/cgroup
umount --recursive --lazy "$keep"
rmdir "$keep"
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
# Shared, as systemd makes it on a real node; unshare has cut it off from the host. Last: what is
# unmounted above would vanish from its peers too.
mount --make-rshared /
set +e
# Not exec: this shell is PID 1 here and reaps the orphans that the tests make.
"$@"
exit $?
'
exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
    sh -c "$inside" isolate.sh "$@"
