#!/bin/sh
# packages.sh demo|test|prove|bench|vm: makes sure that the programs which that command runs are here.
# As root on a Debian-like system the missing ones are installed with apt-get; elsewhere they are
# named. Exits 1 when something that cannot be done without is still missing.
set -eu
cd "$(dirname "$0")/../.."
purpose=$1
# System programs are often in sbin, which an unprivileged PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

have_program() { command -v "$1" >/dev/null 2>&1; }

have_cni_plugins() {
    for directory in /opt/cni/bin /usr/lib/cni /usr/libexec/cni; do
        if [ -x "$directory/bridge" ] && [ -x "$directory/host-local" ] && [ -x "$directory/portmap" ]; then
            return 0
        fi
    done
    return 1
}

# A dynamic busybox cannot run in an image that holds nothing else.
have_static_busybox() {
    for path in /bin/busybox /usr/bin/busybox /usr/lib/busybox/busybox-static; do
        # A static program names no interpreter: readelf may be missing, ldd is part of libc.
        if [ -x "$path" ] && ! ldd "$path" >/dev/null 2>&1; then
            return 0
        fi
    done
    return 1
}

missing=
need() { # need PACKAGE CHECK...
    package=$1
    shift
    "$@" || missing="$missing $package"
}

if [ "$purpose" = vm ]; then
    # The guest has all that runs in it; here only what makes it.
    need qemu-system-x86 have_program qemu-system-x86_64
    need debootstrap have_program debootstrap
    need e2fsprogs have_program mkfs.ext4
    need busybox-static have_static_busybox
fi
if [ "$purpose" != vm ]; then
    need runc have_program runc
    need crun have_program crun
    need conmon have_program conmon
    need catatonit have_program catatonit
    need containernetworking-plugins have_cni_plugins
    need iptables have_program iptables
    need busybox-static have_static_busybox
fi
if [ "$purpose" = bench ]; then
    need containerd have_program containerd
    need docker-registry have_program docker-registry
    need e2fsprogs have_program mkfs.ext4
    need iproute2 have_program ip
fi
if [ "$purpose" = test ]; then
    need nftables have_program nft
    need iproute2 have_program ip
    need docker-registry have_program docker-registry
    need skopeo have_program skopeo
    need umoci have_program umoci
    need fuse-overlayfs have_program fuse-overlayfs
    need btrfs-progs have_program mkfs.btrfs
    need xfsprogs have_program mkfs.xfs
fi
if [ "$purpose" = prove ]; then
    # What builds, checks and tries packages; without them those tests are skipped.
    need chromium have_program chromium
    need debootstrap have_program debootstrap
    need fish have_program fish
    need groff-base have_program groff
    need lintian have_program lintian
    need rpm have_program rpmbuild
    need rpmlint have_program rpmlint
    need shellcheck have_program shellcheck
    need zsh have_program zsh
fi
if ! packaging/setup/python.sh >/dev/null 2>&1; then
    missing="$missing python3 python3-venv"
fi
missing=${missing# }
[ -n "$missing" ] || exit 0

user=$(id -u)
if [ "$user" != 0 ]; then
    echo "Missing Debian/Ubuntu packages: $missing"
    echo "Install them as root:  apt-get install --no-install-recommends $missing"
    # Without root only the tests that touch no host run, and those need none of these programs.
    [ "$purpose" = test ]
    exit
fi
if ! have_program apt-get; then
    echo "These programs are missing, named here as Debian packages: $missing" >&2
    echo "This system has no apt-get: install them with its own package manager, then try again." >&2
    exit 1
fi

# Keep maintainer scripts from starting services (docker-registry would listen on port 5000).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
fi

echo "Installing Debian/Ubuntu packages: $missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=120 update
# shellcheck disable=SC2086 # a list of package names
apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $missing
