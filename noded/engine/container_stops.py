"""How a container is brought to its end: asked, then killed, then taken down by force."""

from __future__ import annotations

import signal
import time

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.nri import Nri
from noded.engine.supervise import Supervisor
from noded.model.runtime import Exit
from noded.model.signals import signal_number
from noded.model.states import ContainerState
from noded.tracing.spans import span

log = structlog.get_logger(__name__)

_KILLED_CODE = 128 + signal.SIGKILL
_KILL_SECONDS = 10.0  # from SIGKILL to giving up on a clean exit record


class ContainerStops:
    """The stop escalation: signal, SIGKILL to all in the cgroup, the task and its monitor, the mark."""

    def __init__(self, *, ladder: ContainerLadder, supervisor: Supervisor, nri: Nri) -> None:
        self._ladder = ladder
        self._supervisor = supervisor
        self._nri = nri

    async def stop(self, container: Container, timeout_seconds: float) -> None:
        """End a container; the exit is durable when this returns.

        Args:
            timeout_seconds: between the stop signal and SIGKILL; 0 = SIGKILL at once.

        Idempotent. Bounded: after SIGKILL without effect its task is deleted by force.
        Cancellation: safe; the container keeps the signal it got. Locks: none during the grace.
        """
        container.interrupt_checkpoint()  # of one that died under it, too: a removal waits for the lock
        if container.exited.is_set():
            return
        if container.record.restore and container.view.state is ContainerState.CREATED:
            async with container.lock:  # it has no task, unless it is just being started
                if container.view.state is ContainerState.CREATED:
                    await self._supervisor.record_exit(container, Exit(_KILLED_CODE, time.time_ns()))
        runtime = await self._ladder.sandbox_runtime(container)
        if timeout_seconds > 0 and container.view.state is ContainerState.RUNNING:
            container.stage = "waiting for it to exit"
            with span("signal, and wait for its exit"):
                await runtime.kill(container.ref, _stop_signal(container))
                with trio.move_on_after(timeout_seconds):
                    await container.exited.wait()
        if not container.exited.is_set():
            container.stage = "killing it"
            with span("kill"):
                await runtime.kill(container.ref, signal.SIGKILL, everything=True)
                with trio.move_on_after(_KILL_SECONDS):
                    await container.exited.wait()
        if not container.exited.is_set():
            container.stage = "taking its task down by force"
            log.warning("container survived SIGKILL", id=container.id, seconds=_KILL_SECONDS)
            async with container.lock:
                await runtime.delete(container.ref)
                container.task_gone = True
            killed = Exit(_KILLED_CODE, time.time_ns(), message="taken down by force")
            await self._supervisor.record_exit(container, killed)
        if self._nri.active:
            await self._nri.stopped(container)
        container.stage = ""


def _stop_signal(container: Container) -> int:
    name = container.record.stop_signal
    number = signal_number(name)
    if number is None:
        log.warning("unknown stop signal, using SIGTERM", id=container.id, stop_signal=name)
        return int(signal.SIGTERM)
    return number
