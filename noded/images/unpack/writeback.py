"""Having a file written to disk before anybody waits for it."""

from __future__ import annotations

import ctypes

# So much at a time, for few, long writes; smaller files are left to the syncfs of the whole image.
WRITEBACK_BYTES = 8 << 20

_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None)


def start_writeback(fd: int) -> None:
    """Begin to write the dirty pages of a file, sync_file_range(2). Waits for a full request queue at most.

    Only a matter of time: the disk works while the rest is still being downloaded and extracted, and the
    fsync or syncfs that makes the file durable, and reports errors, finds less to do.
    """
    _libc.sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), _SYNC_FILE_RANGE_WRITE)
