"""Work on one cgroup directory and those below it; `noded.host.cgroups` does it in every hierarchy."""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from noded.errors import FailedPrecondition
from noded.host import cgroup_stats, libc
from noded.host.small_files import read_small, write_small

# A cgroup whose last process has just been reaped can be busy a moment longer, and v1 has no event
# for its end: between two tries wait this long, within the caller's bound.
SETTLE_SECONDS = 0.01


def tree(path: Path) -> list[Path]:
    """Return `path` and all cgroups below it, deepest first; what vanishes meanwhile is left out."""
    try:
        # A directory has one link for each directory below it, one in its parent, and its own.
        if os.stat(path).st_nlink == 2:
            return [path]
    except FileNotFoundError:
        return []
    found = []
    for directory, _, _ in os.walk(path, topdown=False, onerror=None):
        found.append(Path(directory))
    return found


def read_pids(directory: Path) -> set[int]:
    """The processes of a cgroup, none when it is gone or threaded. Raises: by errno."""
    try:
        return cgroup_stats.parse_pids(read_small(directory / "cgroup.procs").decode())
    except FileNotFoundError:
        return set()
    except OSError as error:
        if error.errno == errno.ENODEV:
            return set()
        if error.errno == errno.EOPNOTSUPP:  # a threaded cgroup: its processes are its domain's
            return set()
        raise libc.os_error(error, f"cannot list the processes of the cgroup {directory}") from None


def remove_tree(path: Path) -> bool:
    """Remove deepest first; False when something in it is busy."""
    for directory in tree(path):
        try:
            directory.rmdir()
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise libc.os_error(error, f"cannot remove the cgroup {directory}") from None
    return True


def wait_for_end(pids: set[int], deadline: float) -> None:
    """Wait until each process has ended (zombies have), or until the deadline."""
    waiter = select.poll()
    pidfds: set[int] = set()
    try:
        for pid in pids:
            try:
                fd = os.pidfd_open(pid)
            except OSError:  # ended, or out of descriptors: the caller looks again
                continue
            pidfds.add(fd)
            waiter.register(fd, select.POLLIN)
        pending = len(pidfds)
        if not pending:
            time.sleep(SETTLE_SECONDS)
        while pending and (left := deadline - time.monotonic()) > 0:
            for fd, _ in waiter.poll(left * 1000):
                waiter.unregister(fd)
                pending -= 1
    finally:
        for fd in pidfds:
            os.close(fd)


def enable_controllers(directory: Path) -> None:
    """Give the children of a v2 cgroup all its controllers (cgroup-v2.rst, "Top-down Constraint")."""
    try:
        available = set((directory / "cgroup.controllers").read_text().split())
        control = directory / "cgroup.subtree_control"
        missing = available - set(control.read_text().split())
        if missing:
            _enable(control, sorted(missing))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise FailedPrecondition(
                f"cgroup {directory} holds processes {some(read_pids(directory))}, so cgroup v2 gives its "
                "children no controllers: move them into a cgroup of their own"
            ) from None
        raise libc.os_error(error, f"cannot enable controllers below the cgroup {directory}") from None


def _enable(control: Path, controllers: list[str]) -> None:
    """Enable all at once, or else one by one: one that cannot be must not keep the others away.

    The cpu controller, for one, is refused while real-time processes run outside the root.
    """
    try:
        control.write_text(" ".join(f"+{name}" for name in controllers))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise
        for name in controllers:
            with suppress(OSError):
                control.write_text(f"+{name}")


def copy_cpuset(parent: Path, child: Path) -> None:
    """A new v1 cpuset is empty and takes no process until it has CPUs and memory nodes."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not read_small(child / name).strip():
            write_small(child / name, read_small(parent / name))


def some(pids: Iterable[int]) -> str:
    """The first pids of many, for a message."""
    listed = sorted(pids)
    return ", ".join(map(str, listed[:5])) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
