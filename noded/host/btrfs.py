"""btrfs subvolumes and their quota groups, by ioctl(2) (linux/btrfs.h). Everything here blocks."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path

from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import libc
from noded.host.filesystems import BTRFS, filesystem_magic

_SNAP_DESTROY = 0x5000940F
_INO_LOOKUP = 0xD0009412
_SNAP_CREATE_V2 = 0x50009417
_SUBVOL_CREATE_V2 = 0x50009418
_QGROUP_CREATE = 0x4010942A
_QGROUP_LIMIT = 0x8030942B

_ARGS = struct.Struct("=q4088s")  # struct btrfs_ioctl_vol_args
_ARGS_V2 = struct.Struct("=qQQ32x4040s")  # struct btrfs_ioctl_vol_args_v2
_LOOKUP = struct.Struct("=QQ4080s")  # struct btrfs_ioctl_ino_lookup_args
_LIMIT = struct.Struct("=6Q")  # struct btrfs_ioctl_qgroup_limit_args
_QGROUP = struct.Struct("=QQ")  # struct btrfs_ioctl_qgroup_create_args
_MAX_REFERENCED, _MAX_EXCLUSIVE = 1, 2
_FIRST_INODE = 256  # BTRFS_FIRST_FREE_OBJECTID: the inode of every subvolume's root
_NAME_BYTES = 255


def is_subvolume(path: Path) -> bool:
    """Whether `path` is the root of a btrfs subvolume; False when it is missing."""
    try:
        return os.lstat(path).st_ino == _FIRST_INODE and filesystem_magic(path) == BTRFS
    except FileNotFoundError:
        return False


def create_subvolume(path: Path) -> None:
    """Make an empty subvolume, mode 0755. Its parent must exist on btrfs.

    Raises: AlreadyExists; by errno.
    """
    _in_parent(path, _SUBVOL_CREATE_V2, _ARGS_V2.pack(0, 0, 0, _name(path)), f"cannot make subvolume {path}")


def snapshot(source: Path, path: Path) -> None:
    """Make a writable snapshot of the subvolume `source` at `path`.

    Raises: AlreadyExists; by errno.
    """
    fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        arguments = _ARGS_V2.pack(fd, 0, 0, _name(path))
        _in_parent(path, _SNAP_CREATE_V2, arguments, f"cannot make {path} a snapshot of {source}")
    finally:
        os.close(fd)


def destroy_subvolume(path: Path) -> bool:
    """Delete a subvolume with all it holds; the kernel frees its blocks later.

    Idempotent: a missing one is success. Returns False, and deletes nothing, when there are subvolumes
    in it.
    """
    try:
        _ask_parent(path, _SNAP_DESTROY, _ARGS.pack(0, _name(path)))
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            return False
        raise libc.os_error(error, f"cannot delete subvolume {path}") from None
    return True


def limit(path: Path, max_bytes: int, *, exclusive: bool) -> None:
    """Limit how much a subvolume takes; repeating it replaces the limit.

    Args:
        exclusive: count only what no other subvolume shares, else everything in it.

    Raises: FailedPrecondition when quotas are off for the file system; by errno.
    """
    kind = _MAX_EXCLUSIVE if exclusive else _MAX_REFERENCED
    # qgroup 0/N of subvolume N; 0 means the subvolume that the descriptor is in.
    data = _LIMIT.pack(0, kind, 0 if exclusive else max_bytes, max_bytes if exclusive else 0, 0, 0)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _QGROUP_LIMIT, data)
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.ENOENT, errno.EINVAL):
            raise FailedPrecondition(
                f"the btrfs file system of {path} has quotas off: run `btrfs quota enable {path.parent}`"
            ) from None
        raise libc.os_error(error, f"cannot limit subvolume {path}") from None
    finally:
        os.close(fd)


def subvolume_id(path: Path) -> int:
    """The number of the subvolume that `path` is in, which is also that of its quota group."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    found = bytearray(_LOOKUP.pack(0, _FIRST_INODE, b""))
    try:
        fcntl.ioctl(fd, _INO_LOOKUP, found)
    except OSError as error:
        raise libc.os_error(error, f"cannot find the subvolume of {path}") from None
    finally:
        os.close(fd)
    number: int = _LOOKUP.unpack(found)[0]
    return number


def destroy_quota_group(path: Path, number: int) -> bool:
    """Delete the quota group that a deleted subvolume has left; `path` is on its file system.

    Returns False while the kernel is still deleting the subvolume, and where quotas are off.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _QGROUP_CREATE, _QGROUP.pack(0, number))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return True
        if error.errno in (errno.EBUSY, errno.ENOTCONN):
            return False
        raise libc.os_error(error, f"cannot delete quota group 0/{number}") from None
    finally:
        os.close(fd)
    return True


def _in_parent(path: Path, request: int, arguments: bytes, what: str) -> None:
    try:
        _ask_parent(path, request, arguments)
    except OSError as error:
        raise libc.os_error(error, what) from None


def _ask_parent(path: Path, request: int, arguments: bytes) -> None:
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, request, bytearray(arguments))  # Python passes no more than 1024 constant bytes
    finally:
        os.close(fd)


def _name(path: Path) -> bytes:
    name = os.fsencode(path.name)
    if len(name) > _NAME_BYTES:
        raise InvalidArgument(f"the name of subvolume {path} has more than {_NAME_BYTES} bytes")
    return name
