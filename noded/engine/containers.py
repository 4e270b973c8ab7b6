"""CreateContainer, StartContainer, StopContainer, RemoveContainer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

import structlog
import trio

from noded.engine.claims import Claim, Claims
from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.container_requests import ContainerRequest, ContainerRequests
from noded.engine.container_starts import ContainerStarts
from noded.engine.container_stops import ContainerStops
from noded.engine.debts import Debts
from noded.engine.events import Events
from noded.engine.handlers import Handlers
from noded.engine.ladder import climb, descend
from noded.engine.nri import Nri
from noded.engine.operations import CALLER, Operation, Operations
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition
from noded.images.library import Library
from noded.model.container import ContainerConfig
from noded.model.lifecycle import ContainerIntent
from noded.model.paths import Layout
from noded.model.states import ContainerState
from noded.model.views import ContainerView
from noded.spec.seccomp.annotations import NotifyMode
from noded.store.containers import ContainerRows
from noded.tracing.spans import about

log = structlog.get_logger(__name__)

_AFTERWARDS_SECONDS = 30.0  # for each thing to be done once a container is created


class Containers:
    """The life of containers."""

    def __init__(
        self,
        *,
        unclaimed_seconds: float,
        layout: Layout,
        rows: ContainerRows,
        registry: Registry,
        operations: Operations,
        handlers: Handlers,
        images: Library,
        requests: ContainerRequests,
        ladder: ContainerLadder,
        starts: ContainerStarts,
        stops: ContainerStops,
        nri: Nri,
        notifier: SeccompNotifier,
        nursery: trio.Nursery,
        events: Events,
        debts: Debts,
    ) -> None:
        self._layout = layout
        self._rows = rows
        self._registry = registry
        self._operations = operations
        self._handlers = handlers
        self._images = images
        self._requests = requests
        self._ladder = ladder
        self._starts = starts
        self._stops = stops
        self._nri = nri
        self._notifier = notifier
        self._nursery = nursery
        self._events = events
        self._debts = debts
        self._claims: Claims[Container] = Claims(
            "container",
            nursery,
            unclaimed_seconds,
            present=self._holds,
            remove=self._remove,
        )

    # reading

    def view(self, name: str) -> ContainerView:
        """The view of a container by id or unique prefix. Raises NotFound."""
        return self._registry.container(name).view

    def peek(self, identity: str) -> ContainerView:
        """By full id, also while it is being created; no client is taken to know it. Raises NotFound."""
        return self._registry.peek_container(identity)

    def views(self) -> Collection[ContainerView]:
        """The views of all containers that clients may see."""
        return [container.view for container in self._registry.containers() if container.visible]

    # creating

    async def create(self, sandbox_id: str, config: ContainerConfig, request: bytes) -> str:
        """Create a container in a READY sandbox; return its id.

        Idempotent by (sandbox, name, attempt): a retry joins the creation in progress or gets the
        id of the created, not yet started container.

        Raises: what `ContainerRequests.check` raises, NotFound for the sandbox, AlreadyExists when
            this attempt has run.
        Cancellation: when the last waiter leaves, everything is undone before this returns.
        Spec: CRI v1 CreateContainer.
        """
        sandbox = self._registry.sandbox(sandbox_id)
        about(sandbox.subject, config.name)
        checked = await self._requests.check(sandbox, config, request)
        container: Container = await self._operations.join(
            ("create", checked.key),
            f"creating container {config.name} in {sandbox.id[:12]}",
            partial(self._create, checked),
            abandoned=self._claims.abandon,
        )
        self._claims.answer(container)
        return container.id

    async def _create(self, request: ContainerRequest, operation: Operation[Container]) -> Container:
        sandbox = request.sandbox
        existing = self._registry.container_of_key(request.key)
        if existing is not None:
            going = existing.record.owed is not None or existing.record.intent is ContainerIntent.REMOVING
            if existing.view.state is ContainerState.CREATED and existing.visible and not going:
                return existing
            if existing.visible and not going:
                raise AlreadyExists(
                    f"container {existing.id[:12]} ({request.key}) has run already: "
                    "remove it, or ask with a higher attempt"
                )
            operation.stage = lambda: f"{existing.stage} of an earlier try"
            await self._remove(existing)
        if not sandbox.ready:
            raise FailedPrecondition(f"pod sandbox {sandbox.id[:12]} was stopped meanwhile: run a new one")
        container = self._new(request)
        operation.stage = lambda: container.stage
        self._registry.add_container(container)
        try:
            await self._climb(container)
        except BaseException as error:
            if self._nri.enabled and container.record.intent is not ContainerIntent.CREATED:
                await self._nri.given_up(container)
            if container.stage == "":  # the rollback has reached the ground: the row is gone
                self._registry.drop_container(container)
                container.tell_deleted()
            else:
                await self._owe(container, container.halted or error)
            raise
        if container.record.seccomp_mode == NotifyMode.RECORD:
            await _afterwards(container, partial(self._notifier.fulfilled, sandbox.id, request.config.name))
        if self._nri.enabled:
            await _afterwards(container, partial(self._nri.created, container))
        log.info("container created", id=container.id, name=request.config.name, pod=str(sandbox.record.key))
        return container

    def _new(self, request: ContainerRequest) -> Container:
        record = self._requests.record(request)
        bundle = self._layout.bundle(record.id)
        container = Container(self._rows, record, request.sandbox, bundle, self._events)
        container.claim = Claim(named=False)
        container.cpus_tuned = False
        return container

    async def _climb(self, container: Container) -> None:
        budget = self._handlers.create_timeout_seconds(container.sandbox.record.handler)
        with trio.move_on_after(budget) as scope:
            await climb(self._ladder.rungs, container)
        if scope.cancelled_caught:
            raise DeadlineExceeded(f"creating the container took longer than {budget:g} s")

    # starting

    async def start(self, name: str) -> None:
        """Run a created container.

        Raises: NotFound, FailedPrecondition when it is not in state CREATED or the runtime refuses.
        Spec: CRI v1 StartContainer.
        """
        container = self._registry.container(name)
        about(container.sandbox.subject, container.record.key.name)
        await self._operations.join(
            ("start", container.id),
            f"starting container {container.id[:12]}",
            partial(self._starts.start, container),
        )

    # stopping

    async def stop(self, name: str, timeout_seconds: float) -> None:
        """Ask the container to exit, kill it when the grace period ends.

        Idempotent: a container that exited or is unknown is success. A second call with a shorter
        grace period is not held up by the first.

        Cancellation: safe; the container keeps the signal it got. Locks: none during the grace.
        Spec: CRI v1 StopContainer.
        """
        container = self._registry.find_container(name)
        if container is None:
            return
        container.claim.named = True
        about(container.sandbox.subject, container.record.key.name)
        caller = CALLER.get()
        if caller is not None:
            caller.operation = Operation(
                f"stopping container {container.id[:12]}", stage=lambda: container.stage
            )
        await self._stops.stop(container, timeout_seconds)

    async def kill(self, container: Container) -> None:
        """End a container at once, for a reason of noded's own."""
        await self._stops.stop(container, 0.0)

    async def stop_all(self, sandbox: PodSandbox) -> None:
        """Kill every container of a pod, and give up those still being created.

        Raises the first failure after trying all.
        """
        await _for_each(self._registry.containers_of(sandbox), self._end)

    async def _end(self, container: Container) -> None:
        if container.record.intent is ContainerIntent.CREATING:
            await self._operations.cancel(("create", container.record.key))
        if container.record.intent in (ContainerIntent.CREATING, ContainerIntent.REMOVING):
            await self._remove(container)  # what a rollback or a removal left; gone already = nothing to do
        else:
            await self._stops.stop(container, 0.0)

    # removing

    async def remove(self, name: str) -> None:
        """Kill the container if it lives and remove everything of it but its log.

        Idempotent; an unknown container is success. Raises: what halted it; it goes on by itself then.
        Spec: CRI v1 RemoveContainer.
        """
        container = self._registry.find_container(name)
        if container is None:
            return
        container.claim.named = True
        await self._join_removal(container)

    async def _join_removal(self, container: Container) -> None:
        about(container.sandbox.subject, container.record.key.name)
        await self._operations.join(
            ("remove container", container.id),
            f"removing container {container.id[:12]}",
            partial(self._remove_operation, container),
        )

    async def unwind(self, container: Container) -> None:
        """Go on with what a daemon that died was at: the rollback of a create, or a removal.

        Of a create clients see only what its rollback cannot take down. Raises: what halted it; it is a
        debt then.
        """
        if container.record.intent is not ContainerIntent.CREATING:
            await self.remove(container.id)
            return
        async with container.lock:
            if not self._holds(container):
                return  # a retry of the create was faster
            try:
                await descend(self._ladder.rungs, container)
            except Exception as error:
                await self._owe(container, error)
                raise
            self._drop(container)
        log.info("half-made container removed", id=container.id)

    async def _remove_operation(self, container: Container, operation: Operation[None]) -> None:
        operation.stage = lambda: container.stage
        await self._remove(container)

    async def _remove(self, container: Container) -> None:
        try:
            await self._take_down(container)
        except Exception as error:
            if self._holds(container):
                await self._owe(container, error)
            raise
        except trio.Cancelled:
            if self._holds(container) and container.record.intent is ContainerIntent.REMOVING:
                self.keep_retrying(container)  # it is half removed
            raise

    async def _take_down(self, container: Container) -> None:
        if not self._holds(container):
            return  # a rollback was faster: there is nothing that could still exit
        if container.record.intent.made and container.record.intent is not ContainerIntent.REMOVING:
            container.stage = "stopping it"
            await self._stops.stop(container, 0.0)
        if self._holds(container):
            await self._nri.removed(container)
        async with container.lock:
            if not self._holds(container):
                return
            container.stage = "removing it"
            if container.record.intent is not ContainerIntent.REMOVING:
                await container.commit(intent=ContainerIntent.REMOVING)
            await descend(self._ladder.rungs, container)
            self._drop(container)
        log.info("container removed", id=container.id)

    def _holds(self, container: Container) -> bool:
        """Whether this very object is still here."""
        return self._registry.container_of_key(container.record.key) is container

    async def _owe(self, container: Container, error: BaseException) -> None:
        """Note a take-down that failed; clients see the container as long as it stays."""
        container.claim.named = True
        changes: dict[str, Any] = {}
        if container.record.intent is ContainerIntent.CREATING:
            changes["intent"] = ContainerIntent.REMOVING
        with trio.CancelScope(shield=True):
            try:
                retry = partial(self._join_removal, container)
                await self._debts.owe(container, error, retry, **changes)
            except Exception as problem:  # the failure itself counts; the retries need no record
                log.warning("debt not recorded yet", id=container.id, error=str(problem))

    def keep_retrying(self, container: Container) -> None:
        """Go on by itself with a removal that failed or was given up half-way; returns at once."""
        self._debts.schedule(container, partial(self._join_removal, container))

    def _drop(self, container: Container) -> None:
        """Nothing of it is left."""
        container.task_gone = True
        self._registry.drop_container(container)
        container.tell_deleted()
        needed = {container.record.image_id, *container.record.volume_images} - {""}
        if any(self._images.get(image) is None for image in needed):  # layers were kept for this one
            self._nursery.start_soon(self._sweep)

    async def _sweep(self) -> None:
        try:
            await self._images.sweep()
        except Exception as error:  # the next sweep takes what is left
            log.warning("layers of a removed image not freed yet", error=str(error))

    async def remove_all(self, sandbox: PodSandbox) -> None:
        """Remove every container of a pod. Raises the first failure after trying all."""
        await _for_each(self._registry.containers_of(sandbox), self._remove)

    def layers_in_use(self) -> set[str]:
        """Chain ids that live containers stand on; image garbage collection keeps them."""
        return {chain for container in self._registry.containers() for chain in container.record.chain_ids}

    def seccomp_in_use(self) -> set[str]:
        """Digests of the pulled seccomp profiles that containers were made with."""
        return {container.record.seccomp_blob for container in self._registry.containers()} - {""}


async def _afterwards(container: Container, act: Callable[[], Awaitable[None]]) -> None:
    """Do what follows the creation: the container is there to stay, so its client gets it all the same."""
    with trio.move_on_after(_AFTERWARDS_SECONDS, shield=True) as scope:
        try:
            await act()
        except Exception as error:
            log.warning("container created, but not all is done", id=container.id, error=str(error))
    if scope.cancelled_caught:
        log.warning("container created, but not all is done in time", id=container.id)


async def _for_each(containers: Sequence[Container], act: Callable[[Container], Awaitable[None]]) -> None:
    """Act on all at once; one that fails keeps no other from its turn. Raises the first failure."""
    failures: list[Exception] = []

    async def attempt(container: Container) -> None:
        try:
            await act(container)
        except Exception as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for container in containers:
            nursery.start_soon(attempt, container)
    if failures:
        raise failures[0]
