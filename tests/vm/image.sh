#!/bin/sh
# image.sh DIRECTORY: makes the disk of the guest, with the kernel that boots it, in DIRECTORY (root).
#
# A stock Debian with what noded's packages depend on, so that apt installs them without a network,
# and a unit that starts tests/vm/guest/agent.py from the second disk. mkfs.ext4 fills the file system
# from a directory: nothing is mounted, and no loop device is needed.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
directory=$1
suite=${VM_SUITE:-trixie}
mirror=${VM_MIRROR:-http://deb.debian.org/debian}
base=systemd,systemd-sysv,libpam-systemd,dbus,udev,apparmor,initramfs-tools,linux-image-cloud-amd64
base=$base,python3,ca-certificates,kmod,iproute2,procps,e2fsprogs,xfsprogs
# Dependencies and recommendations of noded's packages.
base=$base,crun,runc,conmon,catatonit,containernetworking-plugins,iptables,nftables

mkdir -p "$directory"
root=$(mktemp -d "$directory/.root.XXXXXX")
trap 'rm -rf --one-file-system "$root"' EXIT
chmod 755 "$root"
# sid's script knows every Debian suite; that of a newer one may be missing here.
debootstrap --variant=minbase --include="$base" "$suite" "$root" "$mirror" /usr/share/debootstrap/scripts/sid
cp -R "$here/guest/etc/." "$root/etc/"
chroot "$root" passwd --delete root
ln -sf /etc/systemd/system/noded-vm-agent.service "$root/etc/systemd/system/multi-user.target.wants/"
ln -sf /usr/lib/systemd/system/systemd-networkd.service "$root/etc/systemd/system/multi-user.target.wants/"
# Compiling a hundred profiles takes a minute in an emulator. Kept: those that name a runtime.
find "$root/etc/apparmor.d" -maxdepth 1 -type f ! -name runc ! -name crun ! -name busybox -delete
# The first boot has nothing to update; nobody logs in.
for unit in serial-getty@ttyS0.service getty@tty1.service systemd-binfmt.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* "$root/etc/machine-id"
: >"$root/etc/machine-id"
touch "$root/etc/.updated" "$root/var/.updated"
cp -L "$root"/boot/vmlinuz-* "$directory/vmlinuz"
cp -L "$root"/boot/initrd.img-* "$directory/initrd"
rm -f "$directory/disk.unfinished"
mkfs.ext4 -q -F -L noded-vm -d "$root" "$directory/disk.unfinished" 4G
mv "$directory/disk.unfinished" "$directory/disk"
