"""Plugin processes that outlive what started them: a killed daemon, or a plugin that left a child.

When noded is killed during an ADD, the plugin runs on. The next noded then owes DEL for the same
sandbox, and an ADD that finishes after that DEL would leak what it allocated. So plugins carry
their owner in the environment, and a starting noded ends those of its predecessor first.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import structlog
import trio

from noded.errors import NodedError
from noded.host.processes import open_pidfd, wait_pidfd

log = structlog.get_logger(__name__)

# Environment variable of every plugin; the value tells the noded instances of a node apart.
OWNER = "NODED_CNI_OWNER"

_KILL_SECONDS = 10.0  # a killed process that lives longer hangs in the kernel
_LONGEST_ENVIRONMENT_BYTES = 1 << 20


async def end_orphans(owner: str) -> None:
    """Kill the plugins, and their children, that an earlier noded with this owner left running.

    What a plugin has left behind on purpose, after it exited, is spared. Call it before anything
    is run for this owner. A process that cannot be killed is logged.

    Cancellation: safe; repeat the call.
    """
    while True:
        pids = await trio.to_thread.run_sync(_running, owner, abandon_on_cancel=True)
        if not pids:
            return
        log.warning("cni_orphans_killed", pids=sorted(pids), reason="they were started by an earlier noded")
        ended = [await _end(pid, owner) for pid in sorted(pids)]
        if not any(ended):
            return


async def _end(pid: int, owner: str) -> bool:
    """Kill one process; return whether it is gone."""
    try:
        pidfd = open_pidfd(pid)
    except NodedError:
        return True
    try:
        # Looked at again through the pidfd's process: the number may have been reused.
        if not _owned(pid, owner):
            return True
        try:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        except ProcessLookupError:
            return True
        with trio.move_on_after(_KILL_SECONDS):
            await wait_pidfd(pidfd)
            return True
        log.error("cni_plugin_unkillable", pid=pid, cure="it hangs in the kernel; look at its stack")
        return False
    finally:
        os.close(pidfd)


def _running(owner: str) -> frozenset[int]:
    """Pids of running plugins and their children: those whose session leader is a plugin of the owner."""
    owned = {int(name) for name in os.listdir("/proc") if name.isdigit() and _owned(int(name), owner)}
    return frozenset(pid for pid in owned if _session(pid) in owned)


def _owned(pid: int, owner: str) -> bool:
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            environment = file.read(_LONGEST_ENVIRONMENT_BYTES)
    except OSError:
        return False  # gone, a kernel thread, or not ours to see
    return f"{OWNER}={owner}".encode() in environment.split(b"\0")


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


class Adopted:
    """Children that plugins left behind; noded, as a subreaper, becomes their parent.

    They are collected by process group, so that nobody else's children are taken away.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()

    def collect(self, group: int) -> None:
        """Note the process group of a plugin that has ended, and reap whatever is dead in all of them."""
        self._groups.add(group)
        self._groups = {known for known in self._groups if _has_children(known)}


def _has_children(group: int) -> bool:
    """Reap the dead children in a group; return whether live ones remain."""
    while True:
        try:
            pid, _ = os.waitpid(-group, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid == 0:
            return True
