"""statx(2): what stat(2) does not tell."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from noded.host import libc

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100
_AT_NO_AUTOMOUNT = 0x800
_AT_STATX_DONT_SYNC = 0x4000
_ATTR_MOUNT_ROOT = 0x2000

_GONE = frozenset({errno.ENOENT, errno.ENOTDIR})


class _Statx(ctypes.Structure):
    """The beginning of struct statx (linux/stat.h), which has 256 bytes."""

    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("counts", ctypes.c_uint8 * 40),  # links to blocks
        ("attributes_mask", ctypes.c_uint64),
        ("rest", ctypes.c_uint8 * 192),
    )


def is_mount_root(path: Path) -> bool | None:
    """Tell whether `path` itself, links in it not followed, is the root of a mount; missing is not.

    None where the kernel (before 5.8), the C library, or the file system there cannot tell. A network file
    system is not asked, only what is known of it.
    """
    found = _Statx()
    flags = _AT_SYMLINK_NOFOLLOW | _AT_NO_AUTOMOUNT | _AT_STATX_DONT_SYNC
    try:
        libc.call(
            "statx",
            ctypes.c_int(_AT_FDCWD),
            os.fsencode(path),
            ctypes.c_int(flags),
            ctypes.c_uint(0),
            ctypes.byref(found),
        )
    except AttributeError:
        return None
    except OSError as error:
        return False if error.errno in _GONE else None
    if not found.attributes_mask & _ATTR_MOUNT_ROOT:
        return None
    return bool(found.attributes & _ATTR_MOUNT_ROOT)
