"""Zombies that nobody waits for.

As a child subreaper noded inherits the orphans of pods that share the host's PID namespace. Those
it started itself are reaped at once by whoever started them, by pid; a zombie that is still there
at a second look half a minute later has no such owner.
"""

from __future__ import annotations

import os
import signal

import trio

from noded.host.processes import children_of, is_zombie, reap

_PATIENCE_SECONDS = 30.0


async def reap_orphans() -> None:
    """Reap what nobody else does, until cancelled.

    Looks only after a child has ended, and at most once in `_PATIENCE_SECONDS`.
    """
    with trio.open_signal_receiver(signal.SIGCHLD) as signals:
        async for _ in signals:
            suspects: set[int] = set()
            while True:
                await trio.sleep(_PATIENCE_SECONDS)
                suspects = reap_again_seen(suspects)
                if not suspects:
                    break


def reap_again_seen(suspects: set[int]) -> set[int]:
    """Reap the children that are zombies now and were at the last look; return the new suspects."""
    zombies = {pid for pid in children_of(os.getpid()) if is_zombie(pid)}
    for pid in zombies & suspects:
        reap(pid)
    return zombies - suspects
