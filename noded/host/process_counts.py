"""Descriptors, sockets and limits of processes, from /proc. Blocks: use it from a worker thread."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable

# A link is looked at for each descriptor to tell sockets; beyond this many it is not worth it.
_MOST_LINKS = 4096


def count_descriptors(pids: Iterable[int]) -> tuple[int, int | None]:
    """(open descriptors, sockets among them) of some processes; those that end meanwhile count nothing.

    Sockets are None where there are thousands of descriptors to look at.
    """
    descriptors = sockets = 0
    for pid in pids:
        directory = f"/proc/{pid}/fd"
        try:
            names = os.listdir(directory)
        except OSError:
            continue
        descriptors += len(names)
        if descriptors > _MOST_LINKS:
            continue
        for name in names:
            try:
                sockets += os.readlink(f"{directory}/{name}").startswith("socket:")
            except OSError:
                continue
    return descriptors, sockets if descriptors <= _MOST_LINKS else None


def open_files_soft_limit(pid: int) -> int | None:
    """RLIMIT_NOFILE of a process, None when it has ended. Infinity is 2^64 - 1, as in the kernel."""
    try:
        soft, _ = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    except (OSError, ValueError):
        return None
    return 2**64 - 1 if soft == resource.RLIM_INFINITY else soft
