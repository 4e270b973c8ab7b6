"""One task per live container: waits for its end and makes that durable.

The exit is committed before the runtime is told to forget the task, because taking the task down
removes the exit file and the cgroup from which the exit was learnt.
"""

from __future__ import annotations

import structlog
import trio

from noded.engine.backoff import local_delays
from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.nri import Nri
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.model.runtime import Exit, Sandbox

log = structlog.get_logger(__name__)

_CLEAN_UP_SECONDS = 60.0


class Supervisor:
    """Watches containers in a long-lived nursery."""

    def __init__(self, nursery: trio.Nursery, nri: Nri, notifier: SeccompNotifier) -> None:
        self._nursery = nursery
        self._nri = nri
        self._notifier = notifier
        self._ladder: ContainerLadder | None = None

    def use(self, ladder: ContainerLadder) -> None:
        """Give the ladder, which itself needs this supervisor."""
        self._ladder = ladder

    def watch(self, container: Container) -> None:
        """Start watching; returns at once."""
        self._notifier.watch(container)
        self._nursery.start_soon(self._watch, container)

    async def _watch(self, container: Container) -> None:
        seen = await self._wait(container)
        if seen is None:
            return
        runtime, ended = seen
        await self._release_cpus(container)
        await self._record_in_the_end(container, ended)
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

    async def _release_cpus(self, container: Container) -> None:
        """Before the exit is durable: a daemon that dies in between sees the same exit again."""
        assert self._ladder is not None
        try:
            await self._ladder.release_cpus(container)
        except Exception as error:  # RemoveContainer tries again
            log.warning("CPUs of an exited container not released yet", id=container.id, error=str(error))

    async def _wait(self, container: Container) -> tuple[Sandbox, Exit] | None:
        """Wait for the end; None when somebody else has recorded it and taken the task down.

        Not being able to look (a missing plugin, no free descriptor) says nothing about the
        container: only what the runtime answers is an exit.
        """
        assert self._ladder is not None
        delays = local_delays()
        while not container.task_gone:
            try:
                runtime = await self._ladder.sandbox_runtime(container)
                return runtime, await runtime.wait(container.ref)
            except Exception as error:
                log.warning(
                    "a container cannot be watched now, tried again", id=container.id, error=str(error)
                )
            await trio.sleep(next(delays))
        return None

    async def _record_in_the_end(self, container: Container, ended: Exit) -> None:
        """Try until the exit is durable: a full disk gets room again, and nobody else knows of the exit."""
        for delay in local_delays():
            try:
                await self.record_exit(container, ended)
                return
            except Exception as error:
                log.warning("exit not recorded yet", id=container.id, code=ended.code, error=str(error))
            await trio.sleep(delay)

    async def record_exit(self, container: Container, ended: Exit) -> None:
        """Make an exit durable, once."""
        if not await container.end(await self._notifier.explain(container, ended)):
            return
        log.info(
            "container exited",
            id=container.id,
            name=container.record.key.name,
            code=ended.code,
            oom_killed=ended.oom_killed,
        )
        if self._nri.active:
            await self._nri.stopped(container)
