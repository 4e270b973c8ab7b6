"""After a restart: load the records, serve them at once, then bring memory and node together."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from noded.engine.checkpoints import Checkpoints
from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.containers import Containers
from noded.engine.events import Events
from noded.engine.registry import Registry
from noded.engine.restores import Restores, restored_pid
from noded.engine.sandbox import PodSandbox
from noded.engine.sandbox_ladder import SandboxLadder
from noded.engine.sandboxes import Sandboxes
from noded.engine.supervise import Supervisor
from noded.engine.thaws import Thaws
from noded.host import namespaces
from noded.model.host import HostFacts
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.paths import Layout
from noded.model.reconcile import Observed, Plan, Todo, plan
from noded.model.runtime import Exit, TaskState
from noded.store.containers import ContainerRows
from noded.store.sandboxes import SandboxRows

log = structlog.get_logger(__name__)

_PROBES_AT_ONCE = 4  # runtime `state` calls; more only make them queue for the CPUs
_PROBE_SECONDS = 10.0
_TAKE_DOWNS_AT_ONCE = 8
_LOST_CODE = 255

S = TypeVar("S", PodSandbox, Container)


class Recovery:
    """Runs once at start, in two halves: `load` before anything is served, `settle` after."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        layout: Layout,
        sandbox_rows: SandboxRows,
        container_rows: ContainerRows,
        registry: Registry,
        sandbox_ladder: SandboxLadder,
        container_ladder: ContainerLadder,
        sandboxes: Sandboxes,
        containers: Containers,
        supervisor: Supervisor,
        checkpoints: Checkpoints,
        restores: Restores,
        thaws: Thaws,
        nursery: trio.Nursery,
        events: Events,
    ) -> None:
        self._facts = facts
        self._layout = layout
        self._sandbox_rows = sandbox_rows
        self._container_rows = container_rows
        self._registry = registry
        self._sandbox_ladder = sandbox_ladder
        self._container_ladder = container_ladder
        self._sandboxes = sandboxes
        self._containers = containers
        self._supervisor = supervisor
        self._checkpoints = checkpoints
        self._restores = restores
        self._thaws = thaws
        self._nursery = nursery
        self._take_downs = trio.CapacityLimiter(_TAKE_DOWNS_AT_ONCE)
        self._events = events

    async def load(self) -> None:
        """Fill the registry from the database; nothing on the node is touched.

        After a reboot every container is marked exited and every sandbox not ready before this
        returns, so that no client ever sees a pod of an earlier boot as running.
        """
        for record in await self._sandbox_rows.load():
            self._registry.add_sandbox(PodSandbox(self._sandbox_rows, record, self._events))
        sandboxes = {sandbox.id: sandbox for sandbox in self._registry.sandboxes()}
        for row in await self._container_rows.load():
            sandbox = sandboxes[row.key.sandbox_id]
            container = Container(
                self._container_rows, row, sandbox, self._layout.bundle(row.id), self._events
            )
            self._registry.add_container(container)
        await self._mark_lost()

    async def _mark_lost(self) -> None:
        boot_id = self._facts.boot_id
        for container in self._registry.containers():
            record = container.record
            if record.boot_id != boot_id and record.exited is None:
                await container.commit(
                    exited=Exit(_LOST_CODE, time.time_ns(), message="the node was rebooted")
                )
        for sandbox in self._registry.sandboxes():
            if sandbox.record.boot_id != boot_id and sandbox.ready:
                await sandbox.commit(intent=SandboxIntent.STOPPING)

    async def settle(self) -> None:
        """Carry out the plan. One object's failure never keeps the others waiting.

        What takes time (taking down what is half made or was being stopped) goes on in the
        background: after a reboot the CNI plugins may be missing until a pod of their own runs.
        """
        todo = plan(
            [sandbox.record for sandbox in self._registry.sandboxes()],
            [container.record for container in self._registry.containers()],
            await self._observe(),
            self._facts.boot_id,
        )
        _log_plan(todo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._checkpoints.sweep)
            for container in self._registry.containers():
                nursery.start_soon(self._guarded, self._container, container, todo.containers[container.id])
            for sandbox in self._registry.sandboxes():
                nursery.start_soon(self._guarded, self._sandbox, sandbox, todo.sandboxes[sandbox.id])

    async def _later(self, act: Callable[[S], Awaitable[None]], subject: S) -> None:
        async with self._take_downs:
            try:
                await act(subject)
            except Exception as error:
                log.warning("take-down after a restart failed", id=subject.id, error=str(error))

    async def _guarded(self, act: Callable[..., Awaitable[None]], subject: object, todo: Todo) -> None:
        try:
            await act(subject, todo)
        except Exception as error:
            identity = getattr(subject, "id", "")
            log.warning("recovery of an object failed", id=identity, todo=todo.value, error=str(error))

    async def _observe(self) -> Observed:
        def pins_there() -> dict[str, bool]:
            return {
                sandbox.id: all(
                    namespaces.is_namespace_pin(path)
                    for path in self._sandbox_ladder.pins(sandbox.id, sandbox.record.config).values()
                )
                for sandbox in self._registry.sandboxes()
            }

        tasks: dict[str, TaskState] = {}
        limiter = trio.CapacityLimiter(_PROBES_AT_ONCE)

        async def ask(container: Container) -> None:
            async with limiter:
                with trio.move_on_after(_PROBE_SECONDS):
                    try:
                        runtime = await self._container_ladder.sandbox_runtime(container)
                        tasks[container.id] = await runtime.state(container.ref)
                    except Exception as error:
                        log.warning("runtime state unknown", id=container.id, error=str(error))

        async with trio.open_nursery() as nursery:
            for container in self._registry.containers():
                record = container.record
                if (
                    record.intent is ContainerIntent.CREATED
                    and record.exited is None
                    and record.boot_id == self._facts.boot_id
                ):
                    nursery.start_soon(ask, container)
        return Observed(await trio.to_thread.run_sync(pins_there), tasks)

    async def _container(self, container: Container, todo: Todo) -> None:
        if container.record.owed is not None:
            self._containers.keep_retrying(container)
        match todo:
            case Todo.UNWIND:
                container.stage = "unwinding after a restart"
                self._nursery.start_soon(self._later, self._containers.unwind, container)
            case Todo.MARK_STARTED:
                pid = container.record.pid or restored_pid(container)
                await container.commit(intent=ContainerIntent.STARTED, started_at_ns=time.time_ns(), pid=pid)
                self._supervisor.watch(container)
                if container.record.restore:
                    await self._restores.drop_files(container)
            case Todo.WATCH:
                self._supervisor.watch(container)
                await self._thaws.recover(container)
                if container.record.restore and container.record.intent is ContainerIntent.STARTED:
                    await self._restores.drop_files(container)
            case _:
                pass

    async def _sandbox(self, sandbox: PodSandbox, todo: Todo) -> None:
        match todo:
            case Todo.UNWIND:
                sandbox.stage = "unwinding after a restart"
                self._nursery.start_soon(self._later, self._sandboxes.unwind, sandbox)
            case Todo.STOP:
                await self._stop_later(sandbox)
            case Todo.RETRY:
                self._sandboxes.keep_retrying(sandbox)
            case Todo.WATCH:
                runtime = self._sandbox_ladder.open_runtime(sandbox)
                reference = self._sandbox_ladder.reference(sandbox)
                sandbox.runtime = await runtime.attach_sandbox(reference)
                sandbox.pid = await sandbox.runtime.infra_pid() or 0
                sandbox.refresh()
                if sandbox.pid == 0 and self._sandbox_ladder.shares_pids(sandbox):
                    await self._stop_later(sandbox)
                self._sandboxes.inits.watch(sandbox)
            case _:
                pass

    async def _stop_later(self, sandbox: PodSandbox) -> None:
        """Not ready from now on; the rest in the background."""
        if sandbox.ready:
            await sandbox.commit(intent=SandboxIntent.STOPPING)
        self._nursery.start_soon(self._later, lambda one: self._sandboxes.stop(one.id), sandbox)


def _log_plan(todo: Plan) -> None:
    counts: dict[str, int] = {}
    for kind, items in (("sandboxes", todo.sandboxes), ("containers", todo.containers)):
        for what in items.values():
            counts[f"{kind}: {what.value}"] = counts.get(f"{kind}: {what.value}", 0) + 1
    log.info("reconciling with the node", plan=counts)
