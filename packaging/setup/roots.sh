#!/bin/sh
# roots.sh [SUITE...]: what the tests of the packages need from the network, kept in build/packages:
# the locked wheels, and one root file system for each release whose Python differs, made by
# debootstrap with all that noded depends on. The tests themselves run without a network.
# What cannot be had is named and left out: the tests that need it are skipped.
set -u
cd "$(dirname "$0")/../.." || exit
roots=build/packages/roots
programs="catatonit conmon containernetworking-plugins crun iptables nftables runc"
[ $# -gt 0 ] || set -- bookworm trixie noble resolute

packaging/setup/packages.sh prove || echo "Tests of what is missing are skipped." >&2
if ! PYTHONPATH=packaging .venv/bin/python -m noded_packaging wheels >/dev/null; then
    echo "The wheels cannot be downloaded: tests that build noded's package are skipped." >&2
fi
if [ "$(id -u)" != 0 ] || ! command -v debootstrap >/dev/null; then
    echo "No root file systems without root and debootstrap: tests that install packages are skipped." >&2
    exit 0
fi

make_root() { # SUITE
    case $1 in
        bookworm | trixie) mirror=http://deb.debian.org/debian script=sid components=main ;;
        *) mirror=http://archive.ubuntu.com/ubuntu script=gutsy components=main,universe ;;
    esac
    directory=$(mktemp -d "$roots/.$1.XXXXXX") || return 1
    chmod 755 "$directory"
    # Other programs of this machine must not see what is mounted there.
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount --propagation private sh -ec '
        directory=$1 suite=$2 mirror=$3 script=$4 components=$5 programs=$6
        debootstrap --variant=minbase --components="$components" --include=ca-certificates,python3 \
            "$suite" "$directory" "$mirror" "/usr/share/debootstrap/scripts/$script"
        printf "#!/bin/sh\nexit 101\n" >"$directory/usr/sbin/policy-rc.d"
        chmod 755 "$directory/usr/sbin/policy-rc.d"
        mount -t proc proc "$directory/proc"
        export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
        chroot "$directory" apt-get -q update
        chroot "$directory" apt-get -q -y --no-install-recommends install $programs
        umount "$directory/proc"
        rm -rf "$directory"/var/cache/apt/archives/*.deb "$directory"/var/lib/apt/lists/*
    ' sh "$directory" "$1" "$mirror" "$script" "$components" "$programs" >"$roots/$1.log" 2>&1 &&
        tar -C "$directory" --one-file-system -cf "$roots/.$1.tar" . && mv "$roots/.$1.tar" "$roots/$1.tar"
    made=$?
    rm -rf --one-file-system "$directory"
    return $made
}

mkdir -p "$roots"
for suite in "$@"; do
    if [ ! -e "$roots/$suite.tar" ]; then
        echo "Making a root file system of $suite"
        make_root "$suite" || echo "$suite cannot be had, see $roots/$suite.log: its tests are skipped." >&2
    fi
done
