#!/bin/sh
# isolate.sh COMMAND...: as root, runs a command in mount, network, PID and cgroup namespaces of its own.
#
# The tests make mounts, bridges, packet filter rules, cgroups and orphaned processes. Here all of
# that is apart from the machine's own, so that the host oracle sees exactly what the tests did,
# and the kernel removes what a killed test run leaves. Without root, or with NODED_TEST_ON_HOST=1,
# the command runs as it is.
set -eu

# Every daemon of the tests would compile noded anew.
unset PYTHONDONTWRITEBYTECODE

if [ "$(id -u)" != 0 ] || [ -n "${NODED_TEST_ON_HOST:-}" ]; then
    exec "$@"
fi

name=noded-tests-$$

# "CONTROLLERS DIRECTORY" of every hierarchy: our own cgroup in it, below which the tests get theirs.
# In the unified one (controllers "-") it is the root: no other cgroup may hold both processes and
# cgroups with controllers.
hierarchies() {
    awk '
        NR == FNR { split($0, part, ":"); own[part[2]] = substr($0, length(part[1] part[2]) + 3); next }
        {
            for (i = 7; $i != "-"; i++);
            if ($(i + 1) == "cgroup2" && !seen["-"]++) print "-", $5
            if ($(i + 1) != "cgroup") next
            for (key in own) {
                all = key != ""
                n = split(key, names, ",")
                for (j = 1; j <= n; j++) if (!index("," $(i + 3) ",", "," names[j] ",")) all = 0
                if (all && !seen[key]++) print key, $5 (own[key] == "/" ? "" : own[key])
            }
        }' /proc/self/cgroup /proc/self/mountinfo
}
made=$(hierarchies)
unified=/sys/fs/cgroup/unified
[ "${made#- }" = "$made" ] || [ "$(echo "$made" | wc -l)" != 1 ] || unified=/sys/fs/cgroup

# shellcheck disable=SC2317 # called by the trap
remove_cgroups() {
    echo "$made" | while read -r _ directory; do
        # The last processes may still be on their way out.
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            find "$directory/$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
            [ -d "$directory/$name" ] || break
            sleep 0.1
        done
    done
}
trap remove_cgroups EXIT
trap : INT TERM HUP # the command is told too; what it leaves is removed after it

echo "$made" | while read -r controllers directory; do
    mkdir "$directory/$name"
    case ,$controllers, in
        *,cpuset,*)
            for file in cpuset.cpus cpuset.mems; do
                cat "$directory/$file" >"$directory/$name/$file"
            done
            ;;
        ,-,) mkdir "$directory/$name/tests" ;;
    esac
done

# Enters the cgroups, makes them the root of a cgroup namespace, and leaves that root of the
# unified hierarchy for a leaf.
# shellcheck disable=SC2016 # expanded by the shell that runs it
enter='
set -eu
echo "$MADE" | while read -r _ directory; do echo $$ >"$directory/$NAME/cgroup.procs"; done
exec unshare --cgroup sh -c "$LEAVE" isolate.sh "$@"
'
# shellcheck disable=SC2016
leave='
set -eu
echo "$MADE" | while read -r controllers directory; do
    [ "$controllers" != - ] || echo $$ >"$directory/$NAME/tests/cgroup.procs"
done
exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private \
    sh -c "$INSIDE" isolate.sh "$@"
'
# shellcheck disable=SC2016
inside='
set -eu
ip link set lo up
# sysfs shows the network devices, cgroup file systems the cgroups, of the namespace that mounts them.
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
[ "$UNIFIED" = /sys/fs/cgroup ] || mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
echo "$MADE" | while read -r controllers directory; do
    case $controllers in
        -) target=$UNIFIED type=cgroup2 options=rw ;;
        name=*) target=/sys/fs/cgroup/${controllers#name=} type=cgroup options=none,$controllers ;;
        *) target=/sys/fs/cgroup/$controllers type=cgroup options=$controllers ;;
    esac
    mkdir -p "$target"
    mount -t "$type" -o "$options" "$type" "$target"
done
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
# Shared, as systemd makes it on a real node; unshare has cut it off from the host.
mount --make-rshared /
unset MADE NAME UNIFIED LEAVE INSIDE
set +e
# Not exec: this shell is PID 1 here and reaps the orphans that the tests make.
"$@"
exit $?
'
status=0
MADE=$made NAME=$name UNIFIED=$unified LEAVE=$leave INSIDE=$inside sh -c "$enter" isolate.sh "$@" || status=$?
exit "$status"
