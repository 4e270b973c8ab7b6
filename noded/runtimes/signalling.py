"""Signals to tasks whose processes are processes of the host."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

import trio

from noded.host.processes import ProcessIdentity, kill_identity
from noded.runtimes.killing import reap_namespace_zombies


async def signal_init(init: ProcessIdentity | None, number: int) -> None:
    """Signal the first process of a task, if it lives."""
    if init is not None and init.alive():
        kill_identity(init, number)
        if number == signal.SIGKILL:
            await trio.to_thread.run_sync(reap_namespace_zombies, init)


async def signal_members(members: Callable[[], Iterable[int]], number: int) -> None:
    """Signal the processes of a cgroup.

    Args:
        members: reads their pids; may block.
    """

    def signal_each() -> None:
        for pid in members():
            if (identity := ProcessIdentity.of(pid)) is not None:
                kill_identity(identity, number)

    await trio.to_thread.run_sync(signal_each)
