"""Watching the processes that hold the PID namespaces of pods."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import structlog
import trio

from noded.engine.sandbox import PodSandbox
from noded.errors import NotFound
from noded.host.processes import ProcessIdentity, kill_identity, open_pidfd, wait_pidfd
from noded.host.stalls import wait_stalled

log = structlog.get_logger(__name__)

_WATCH_AGAIN_SECONDS = 5.0  # after a process could not be watched for want of a descriptor


class PodInits:
    """Stops a sandbox when its init process dies: no container of it can be joined any more.

    Args:
        nursery: for one task per pod.
        stalled_seconds: how long signals may keep such a process stopped.
        stop: stops the sandbox with this id.
    """

    def __init__(
        self, nursery: trio.Nursery, stalled_seconds: float, stop: Callable[[str], Awaitable[None]]
    ) -> None:
        self._nursery = nursery
        self._stalled_seconds = stalled_seconds
        self._stop = stop

    def watch(self, sandbox: PodSandbox) -> None:
        """Start watching, if the pod has such a process; returns at once."""
        if sandbox.pid:
            self._nursery.start_soon(self._watch, sandbox, sandbox.pid)

    async def _watch(self, sandbox: PodSandbox, pid: int) -> None:
        while True:
            try:
                init = open_pidfd(pid)
                break
            except NotFound:
                init = -1  # gone already
                break
            except Exception as error:  # no descriptor free, say
                log.warning("a pod's init process cannot be watched now", id=sandbox.id, error=str(error))
            await trio.sleep(_WATCH_AGAIN_SECONDS)
        if init >= 0:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._end_stalled, sandbox, pid)
                    await wait_pidfd(init)
                    nursery.cancel_scope.cancel()
            finally:
                os.close(init)
        if sandbox.ready and sandbox.pid == pid:
            sandbox.ended_because = sandbox.ended_because or f"its init process (pid {pid}) died"
            log.warning("stopping a pod", id=sandbox.id, reason=sandbox.ended_because)
            try:
                await self._stop(sandbox.id)
            except Exception as error:
                log.warning("pod without init process not stopped", id=sandbox.id, error=str(error))

    async def _end_stalled(self, sandbox: PodSandbox, pid: int) -> None:
        """Kill the init process if signals keep it stopped: nothing in the pod can be reached any more."""
        init = ProcessIdentity.of(pid)
        if init is None:
            return
        await wait_stalled(init, self._stalled_seconds, init_of=sandbox.id)
        sandbox.ended_because = (
            f"its init process (pid {pid}) was stopped by a signal again after it was continued, and killed"
        )
        kill_identity(init)
