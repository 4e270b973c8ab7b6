"""The kernel's log, read by dmesg."""

from __future__ import annotations

import subprocess


def tells_of_victim(cgroup: str) -> bool:
    """Whether a kill for want of memory in a cgroup whose path has this text is there.

    Of more than ten kills in five seconds, on the whole machine, the kernel tells of ten.
    """
    log = subprocess.run(["dmesg"], capture_output=True, check=True).stdout.decode(errors="replace")
    return any("task_memcg=" in line and cgroup in line for line in log.splitlines())
