"""What the kernel refuses is no defect of noded: say what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from noded.errors import NodedError, ResourceExhausted, Unavailable
from noded.host.libc import os_error


def refusal(error: OSError, action: str) -> NodedError:
    """The error for a client whose request the kernel refused.

    Args:
        action: what noded was doing.
    """
    where = error.filename if error.filename is not None else "the node"
    return disk_refusal(error, action) or os_error(error, f"{action} ({where})")


def disk_refusal(error: OSError, action: str) -> NodedError | None:
    """The same when the disk is full or broken; None for other errors."""
    where = error.filename if error.filename is not None else "noded's root"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceExhausted(f"free space or inodes on the file system of {where}: {action}: {error}")
    if error.errno in (errno.EIO, errno.EROFS):
        return Unavailable(f"check the file system of {where}: {action}: {error}")
    return None


@contextmanager
def told_of_the_disk(action: str) -> Iterator[None]:
    """Explain a full or broken disk to whoever asked for the work of this block."""
    try:
        yield
    except OSError as error:
        explained = disk_refusal(error, action)
        if explained is None:
            raise
        raise explained from error
