"""One task per live container: waits for its end and makes that durable.

The exit is committed before the runtime is told to forget the task, because taking the task down
removes the exit file and the cgroup from which the exit was learnt.
"""

from __future__ import annotations

import time

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.model.runtime import Exit

log = structlog.get_logger(__name__)

_UNKNOWN_EXIT = 255
_CLEAN_UP_SECONDS = 60.0


class Supervisor:
    """Watches containers in a long-lived nursery."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._ladder: ContainerLadder | None = None

    def use(self, ladder: ContainerLadder) -> None:
        """Give the ladder, which itself needs this supervisor."""
        self._ladder = ladder

    def watch(self, container: Container) -> None:
        """Start watching; returns at once."""
        self._nursery.start_soon(self._watch, container)

    async def _watch(self, container: Container) -> None:
        assert self._ladder is not None
        try:
            runtime = await self._ladder.sandbox_runtime(container)
            ended = await runtime.wait(container.ref)
        except Exception as error:
            log.exception("cannot watch a container", id=container.id)
            ended = Exit(_UNKNOWN_EXIT, time.time_ns(), message=f"noded lost sight of it: {error}")
        await self.record_exit(container, ended)
        if container.task_gone:
            return
        with trio.move_on_after(_CLEAN_UP_SECONDS):
            async with container.lock:
                if not container.task_gone:
                    try:
                        await runtime.delete(container.ref)
                        container.task_gone = True
                    except Exception as error:  # RemoveContainer tries again
                        log.warning("exited task not deleted yet", id=container.id, error=str(error))

    async def record_exit(self, container: Container, ended: Exit) -> None:
        """Make an exit durable, once."""
        if container.record.exited is not None:
            return
        started = container.record.started_at_ns or container.start_asked_ns
        await container.commit(exited=ended, started_at_ns=started)
        log.info(
            "container exited",
            id=container.id,
            name=container.record.key.name,
            code=ended.code,
            oom_killed=ended.oom_killed,
        )
