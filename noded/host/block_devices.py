"""Block devices by path."""

from __future__ import annotations

import glob
import os
import stat

_PARTITION = "/sys/dev/block/{}:{}/partition"


def find(pattern: str) -> tuple[tuple[int, int], ...]:
    """The (major, minor) of the block devices that a path with wildcards names, in order. Blocks shortly."""
    found = set()
    for path in glob.iglob(pattern):
        try:
            status = os.stat(path)
        except OSError:  # gone meanwhile, or a dangling link
            continue
        device = os.major(status.st_rdev), os.minor(status.st_rdev)
        # Limits belong to whole disks: the kernel refuses partitions.
        if stat.S_ISBLK(status.st_mode) and not os.path.exists(_PARTITION.format(*device)):
            found.add(device)
    return tuple(sorted(found))
