"""How a created container begins to run: started by its runtime, or restored from its checkpoint."""

from __future__ import annotations

import time

import structlog

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.nri import Nri
from noded.engine.operations import Operation
from noded.engine.supervise import Supervisor
from noded.errors import FailedPrecondition, NodedError
from noded.model.lifecycle import ContainerIntent
from noded.model.runtime import Exit
from noded.model.states import ContainerState
from noded.tracing.spans import span

log = structlog.get_logger(__name__)

_NOT_RESTORED_CODE = 128  # as both peers tell a failed start


class ContainerStarts:
    """Starts containers, once each."""

    def __init__(self, *, ladder: ContainerLadder, supervisor: Supervisor, nri: Nri) -> None:
        self._ladder = ladder
        self._supervisor = supervisor
        self._nri = nri

    async def start(self, container: Container, operation: Operation[None]) -> None:
        """Run it; it is durably STARTED when this returns.

        Raises: FailedPrecondition when it is not CREATED or its pod was stopped; what the runtime raises.
        Cancellation: safe; what the runtime has done is committed by the next call.
        Locks: the container's, but not while NRI plugins are asked.
        """
        if self._nri.active:  # without the lock: a plugin may update this container meanwhile
            _check_startable(container)
            with span("NRI plugins"):
                await self._nri.start(container)
        async with container.lock:
            _check_startable(container)
            runtime = await self._ladder.sandbox_runtime(container)
            if not container.task_started:  # else only the commit of an earlier call failed
                container.start_asked_ns = time.time_ns()
                with span("runtime"):
                    if container.record.restore:
                        await self._restore(container)
                    else:
                        await runtime.start(container.ref)
                container.task_started = True
            with span("record"):
                await container.commit(
                    intent=ContainerIntent.STARTED,
                    started_at_ns=container.record.started_at_ns or container.start_asked_ns,
                    pid=container.created_pid or container.record.pid,
                )
            if container.record.restore:
                self._supervisor.watch(container)
        log.info("container started", id=container.id, name=container.record.key.name)
        if self._nri.active:
            with span("NRI plugins"):
                await self._nri.started(container)

    async def _restore(self, container: Container) -> None:
        """A container that cannot be restored has ended: it has no processes that could be started again."""
        try:
            await self._ladder.restore(container)
        except NodedError as error:
            container.start_asked_ns = 0
            ended = Exit(_NOT_RESTORED_CODE, time.time_ns(), message=str(error))
            await self._supervisor.record_exit(container, ended)
            raise


def _check_startable(container: Container) -> None:
    state = container.view.state
    if state is not ContainerState.CREATED:
        raise FailedPrecondition(
            f"container {container.id[:12]} is {state.name}, only a CREATED one can be started"
        )
    if not container.sandbox.ready:
        raise FailedPrecondition(f"the pod of container {container.id[:12]} was stopped")
