"""What the kernel's log says of kills for want of memory.

A cgroup counts its own kills. But under systemd a container's cgroup is a scope, which systemd removes
as soon as its last process has ended, and the count with it. The log still names the cgroup of each
victim (mm/oom_kill.c: `task_memcg=PATH`); of more than ten kills in five seconds it has only some.
"""

from __future__ import annotations

import ctypes
import re

from noded.host import libc

# syslog(2)
_READ_ALL = 3
_SIZE_OF_BUFFER = 10


def killed_in(place: str) -> bool:
    """Tell whether the kernel's log has a victim in the cgroup of this place, or in one below it.

    Takes some milliseconds: the kernel copies its whole log. False also where that may not be read, which
    wants CAP_SYSLOG.
    """
    try:
        size = libc.call("klogctl", _SIZE_OF_BUFFER, None, 0)
        log = ctypes.create_string_buffer(size)
        used = libc.call("klogctl", _READ_ALL, log, size)
    except OSError:
        return False
    return names_victim(log.raw[:used], place)


def names_victim(log: bytes, place: str) -> bool:
    """Find a victim of the cgroup of a place. The kernel's paths begin at its root, not our namespace's."""
    pattern = rb"\btask_memcg=[^,\n]*" + re.escape(place.encode()) + rb"(?:/[^,\n]*)?,"
    return re.search(pattern, log) is not None
