"""What containers use whose processes the host's cgroups do not show: their runtimes are asked.

A runtime may hang. One question is asked of each container at a time, and who asks waits a short
while only: an answer that comes later is there for the next one.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.handlers import Handlers
from noded.host.cgroup_stats import CgroupUsage
from noded.model.states import ContainerState

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 2.0  # of a client that asks for the stats of all
_ANSWER_SECONDS = 20.0
_AT_ONCE = 4  # each question starts a program


class ToldUsage:
    """Asks runtimes. Keeps the latest answer of each container that still runs.

    Args:
        nursery: for questions that outlast who asked.
    """

    def __init__(self, handlers: Handlers, ladder: ContainerLadder, nursery: trio.Nursery) -> None:
        self._handlers = handlers
        self._ladder = ladder
        self._nursery = nursery
        self._limiter = trio.CapacityLimiter(_AT_ONCE)
        self._asking: dict[str, trio.Event] = {}
        self._answers: dict[str, tuple[CgroupUsage, int | None]] = {}

    def told(self, container: Container) -> bool:
        """Whether its runtime must be asked."""
        return not self._handlers.usage_in_cgroup(container.sandbox.record.handler)

    def known(self, identity: str) -> CgroupUsage | None:
        """The latest answer."""
        answer = self._answers.get(identity)
        return answer[0] if answer else None

    def processes(self, identity: str) -> int | None:
        """How many processes the latest answer says there are."""
        answer = self._answers.get(identity)
        return answer[1] if answer else None

    async def refresh(self, containers: Iterable[Container]) -> None:
        """Ask about those that must be asked about; return when all have answered, or after 2 s."""
        asked = [one for one in containers if one.view.state is ContainerState.RUNNING and self.told(one)]
        if not asked:
            return
        with trio.move_on_after(_PATIENCE_SECONDS):
            for event in [self._ask(one) for one in asked]:
                await event.wait()

    def keep(self, living: Collection[str]) -> None:
        """Forget all others."""
        for identity in [one for one in self._answers if one not in living]:
            del self._answers[identity]

    def _ask(self, container: Container) -> trio.Event:
        if container.id not in self._asking:
            self._asking[container.id] = trio.Event()
            self._nursery.start_soon(self._question, container)
        return self._asking[container.id]

    async def _question(self, container: Container) -> None:
        try:
            async with self._limiter:
                with trio.fail_after(_ANSWER_SECONDS):
                    runtime = await self._ladder.sandbox_runtime(container)
                    usage = await runtime.usage(container.ref)
            self._answers[container.id] = (
                CgroupUsage(
                    at_ns=time.time_ns(),
                    monotonic_ns=time.monotonic_ns(),
                    cpu_ns=usage.cpu_ns,
                    memory_bytes=usage.memory_bytes,
                    working_set_bytes=usage.working_set_bytes,
                ),
                usage.processes,
            )
        except Exception as error:  # a plugin may raise anything
            log.debug("usage of a container not told", id=container.id, error=str(error))
        finally:
            self._asking.pop(container.id).set()
