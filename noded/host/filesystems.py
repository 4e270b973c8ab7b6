"""What kind of file system a path is on (statfs(2))."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from noded.host import libc

BTRFS = 0x9123683E
EXT4 = 0xEF53
FUSE = 0x65735546
NFS = 0x6969
OVERLAY = 0x794C7630
TMPFS = 0x01021994
XFS = 0x58465342

_NAMES = {
    BTRFS: "btrfs",
    EXT4: "ext4",
    FUSE: "fuse",
    NFS: "nfs",
    OVERLAY: "overlay",
    TMPFS: "tmpfs",
    XFS: "xfs",
}
_STATFS_BYTES = 256  # struct statfs has 120 on 64-bit systems


def filesystem_magic(path: Path) -> int:
    """`f_type` of the file system that `path` is on.

    Raises: NotFound... by errno, naming the path.
    """
    buffer = ctypes.create_string_buffer(_STATFS_BYTES)
    try:
        libc.call("statfs", os.fsencode(path), buffer)
    except OSError as error:
        raise libc.os_error(error, f"cannot look at the file system of {path}") from None
    return ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF


def filesystem_name(path: Path) -> str:
    """`filesystem_magic` for messages: "btrfs", or a number where it has no name here."""
    magic = filesystem_magic(path)
    return _NAMES.get(magic, f"of type {magic:#x}")
