"""Mounting and unmounting: mount(2), umount2(2), and binds by `noded.host.mount_fd`.

`noded.host.mountinfo` reads the mount table; its questions are re-exported here. Nothing in this
module opens a target with the caller's trust in symbolic links: targets are the daemon's own paths.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path

from noded.errors import FailedPrecondition, InvalidArgument, NodedError, Unavailable, Unimplemented
from noded.host import libc, mount_fd
from noded.host.mount_fd import MOUNT_ATTR_IDMAP, MOUNT_ATTR_RDONLY, mount_filesystem
from noded.host.mountinfo import is_mountpoint, mounts_below, propagation

__all__ = [
    "bind",
    "ensure_shared_mountpoint",
    "idmap_bind",
    "is_mountpoint",
    "make_private",
    "make_shared",
    "make_slave",
    "mount",
    "mount_filesystem",
    "mounts_below",
    "propagation",
    "unmount",
]

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MS_SLAVE = 0x80000
MS_SHARED = 0x100000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

# copy_mount_options() in the kernel copies at most one page and cuts the rest without a word.
_DATA_LIMIT_BYTES = os.sysconf("SC_PAGE_SIZE") - 1

# More mounts than this stacked on one target are a runaway, not a repeated start.
_STACKED_LIMIT = 64


def mount(source: str, target: Path, fstype: str, flags: int = 0, data: str = "") -> None:
    """mount(2).

    Raises:
        InvalidArgument: `data` is longer than the kernel reads; use `mount_filesystem`.
        NotFound, PermissionDenied, Unavailable...: by errno, naming source, target and type.
    """
    options = os.fsencode(data)
    what = f"cannot mount {fstype or source} on {target}"
    if len(options) > _DATA_LIMIT_BYTES:
        raise InvalidArgument(
            f"{what}: its options have {len(options)} bytes, the kernel reads {_DATA_LIMIT_BYTES}"
        )
    try:
        libc.call(
            "mount",
            os.fsencode(source),
            os.fsencode(target),
            os.fsencode(fstype),
            ctypes.c_ulong(flags),
            options or None,
        )
    except OSError as error:
        raise libc.os_error(
            error, what if not source or source == fstype else f"{what} from {source}"
        ) from None


def bind(source: Path, target: Path, *, recursive: bool = False, readonly: bool = False) -> None:
    """Show `source` also at `target`. A read-only bind is never writable, not even for a moment.

    With `recursive` the mounts below come along, and become read-only too where asked.

    Raises: NotFound, PermissionDenied..., Unimplemented for a recursive read-only bind before 5.12.
    """
    what = f"cannot bind {source} on {target}"
    if not readonly:
        try:
            _classic_bind(source, target, MS_BIND | (MS_REC if recursive else 0))
        except OSError as error:
            raise libc.os_error(error, what) from None
        return
    try:
        with mount_fd.cloned(source, what, recursive=recursive) as tree:
            mount_fd.set_attributes(
                tree, mount_fd.MountAttr(attr_set=MOUNT_ATTR_RDONLY), what, recursive=recursive
            )
            mount_fd.attach(tree, target, what)
    except Unimplemented:
        if recursive:
            raise Unimplemented(f"{what} recursively read-only: Linux 5.12 or later is needed") from None
        _classic_readonly_bind(source, target, what)


def idmap_bind(source: Path, target: Path, userns_fd: int, *, readonly: bool = True) -> None:
    """Show `source` at `target` with file owners translated by a user namespace (mount_setattr(2)).

    Raises: Unimplemented naming the file system when it or the kernel cannot do this.
    """
    what = f"cannot idmap-bind {source} on {target}"
    attr_set = MOUNT_ATTR_IDMAP | (MOUNT_ATTR_RDONLY if readonly else 0)
    with mount_fd.cloned(source, what, recursive=False) as tree:
        try:
            mount_fd.set_attributes(
                tree, mount_fd.MountAttr(attr_set=attr_set, userns_fd=userns_fd), what, recursive=False
            )
        except (Unimplemented, FailedPrecondition) as error:
            raise Unimplemented(
                f"{what}: this kernel or the file system of {source} has no idmapped mounts ({error})"
            ) from None
        mount_fd.attach(tree, target, what)


def unmount(target: Path, *, detach: bool = False) -> None:
    """Unmount everything that is stacked on `target`. Not mounted or missing is success.

    With `detach` the mount disappears from the tree at once and lives on for those who use it.

    Raises: Unavailable naming what keeps it busy; others by errno.
    """
    flags = UMOUNT_NOFOLLOW | (MNT_DETACH if detach else 0)
    for _ in range(_STACKED_LIMIT):
        try:
            libc.call("umount2", os.fsencode(target), ctypes.c_int(flags))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return
            if error.errno == errno.EINVAL and not is_mountpoint(target):
                return
            if error.errno == errno.EBUSY:
                raise _busy(target) from None
            raise libc.os_error(error, f"cannot unmount {target}") from None
    raise Unavailable(f"cannot unmount {target}: more than {_STACKED_LIMIT} mounts are stacked on it")


def _busy(target: Path) -> NodedError:
    below = mounts_below(target)
    if below:
        return Unavailable(f"cannot unmount {target}: unmount {below[0]} first, it is mounted below (EBUSY)")
    return Unavailable(f"cannot unmount {target}: a process uses it (EBUSY)")


def make_shared(path: Path, *, recursive: bool = False) -> None:
    """Make the mount at `path` propagate to and from its clones.

    Raises: FailedPrecondition when nothing is mounted there.
    """
    _set_propagation(path, MS_SHARED, recursive)


def make_slave(path: Path, *, recursive: bool = False) -> None:
    """Make the mount at `path` receive propagation only."""
    _set_propagation(path, MS_SLAVE, recursive)


def make_private(path: Path, *, recursive: bool = False) -> None:
    """Cut the mount at `path` from propagation."""
    _set_propagation(path, MS_PRIVATE, recursive)


def ensure_shared_mountpoint(path: Path) -> None:
    """Make `path` a shared mount of itself, with the steps and the lock of `ip netns add`.

    Mounts made below by one mount namespace then appear in others: pinned network namespaces are
    useful to CNI plugins in containers only so. Idempotent, and safe beside a running `ip netns`.
    """
    what = f"cannot make {path} a shared mount"
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise libc.os_error(error, what) from None
    try:
        # ip(8) takes the same lock; the bind shows the same inode, so late comers wait for it too.
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not is_mountpoint(path):
            _classic_bind(path, path, MS_BIND | MS_REC)
        if propagation(path) != "shared":
            _set_propagation(path, MS_SHARED, recursive=True)
    except OSError as error:
        raise libc.os_error(error, what) from None
    finally:
        os.close(fd)


def _set_propagation(path: Path, kind: int, recursive: bool) -> None:
    try:
        libc.call(
            "mount", None, os.fsencode(path), None, ctypes.c_ulong(kind | (MS_REC if recursive else 0)), None
        )
    except OSError as error:
        raise libc.os_error(error, f"cannot change the propagation of the mount at {path}") from None


def _classic_bind(source: Path, target: Path, flags: int) -> None:
    libc.call("mount", os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None)


def _classic_readonly_bind(source: Path, target: Path, what: str) -> None:
    """Before Linux 5.12: bind, then remount. MS_REMOUNT replaces all per-mount flags, so keep them."""
    try:
        _classic_bind(source, target, MS_BIND)
        try:
            kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC | os.ST_NOATIME)
            flags = ctypes.c_ulong(MS_BIND | MS_REMOUNT | MS_RDONLY | kept)
            libc.call("mount", None, os.fsencode(target), None, flags, None)
        except OSError:
            libc.call("umount2", os.fsencode(target), ctypes.c_int(UMOUNT_NOFOLLOW | MNT_DETACH))
            raise
    except OSError as error:
        raise libc.os_error(error, f"{what} read-only") from None
