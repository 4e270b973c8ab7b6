"""CreateContainer, StartContainer, StopContainer, RemoveContainer."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import PurePosixPath

import structlog
import trio

from noded.config import Config
from noded.engine.claims import Claim, Claims
from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder, pod_user_namespace
from noded.engine.events import Events
from noded.engine.handlers import Handlers
from noded.engine.ladder import climb, descend
from noded.engine.nri import Nri
from noded.engine.operations import CALLER, Operation, Operations
from noded.engine.registry import Registry
from noded.engine.restores import Origin, Restores
from noded.engine.sandbox import PodSandbox
from noded.engine.seccomp_notifier import SeccompNotifier, check_mode
from noded.engine.supervise import Supervisor
from noded.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    ImageVolumeMountFailed,
    NodedError,
    NotFound,
    Unimplemented,
)
from noded.host.cgroups import Cgroups
from noded.images.library import Library
from noded.images.trust.admission import Admission
from noded.model.container import ContainerConfig, ContainerKey, Mount
from noded.model.host import HostFacts
from noded.model.image import Image
from noded.model.lifecycle import ContainerIntent
from noded.model.paths import Layout
from noded.model.pod import PodConfig
from noded.model.records import ContainerRecord
from noded.model.runtime import Exit, RuntimeFeatures
from noded.model.signals import signal_number
from noded.model.views import ContainerState, ContainerView
from noded.spec.annotations import STOP_SIGNAL
from noded.spec.features import container_features
from noded.spec.seccomp.annotations import NotifyMode, notify_mode
from noded.spec.validate import validate_container
from noded.store.containers import ContainerRows
from noded.tracing.spans import about, span, wait

log = structlog.get_logger(__name__)

_KILLED_CODE = 128 + signal.SIGKILL
_NOT_RESTORED_CODE = 128  # as both peers tell a failed start
_AFTERWARDS_SECONDS = 30.0  # for each thing to be done once a container is created
_KILL_SECONDS = 10.0  # from SIGKILL to giving up on a clean exit record


class Containers:
    """The life of containers."""

    def __init__(
        self,
        *,
        config: Config,
        facts: HostFacts,
        layout: Layout,
        rows: ContainerRows,
        registry: Registry,
        operations: Operations,
        handlers: Handlers,
        cgroups: Cgroups,
        images: Library,
        admission: Admission,
        ladder: ContainerLadder,
        supervisor: Supervisor,
        nri: Nri,
        notifier: SeccompNotifier,
        restores: Restores,
        nursery: trio.Nursery,
        events: Events,
    ) -> None:
        self._config = config
        self._facts = facts
        self._layout = layout
        self._rows = rows
        self._registry = registry
        self._operations = operations
        self._handlers = handlers
        self._cgroups = cgroups
        self._images = images
        self._admission = admission
        self._ladder = ladder
        self._supervisor = supervisor
        self._nri = nri
        self._notifier = notifier
        self._restores = restores
        self._nursery = nursery
        self._events = events
        self._claims: Claims[Container] = Claims(
            "container",
            nursery,
            config.unclaimed_seconds,
            present=lambda one: registry.find_container(one.id) is one,
            remove=self._remove,
        )

    # reading

    def view(self, name: str) -> ContainerView:
        """The view of a container by id or unique prefix. Raises NotFound."""
        return self._registry.container(name).view

    def views(self) -> Collection[ContainerView]:
        """The views of all containers that clients may see."""
        return [container.view for container in self._registry.containers() if container.visible]

    # creating

    async def create(self, sandbox_id: str, config: ContainerConfig, request: bytes) -> str:
        """Create a container in a READY sandbox; return its id.

        Idempotent by (sandbox, name, attempt): a retry joins the creation in progress or gets the
        id of the created, not yet started container.

        Raises: InvalidArgument naming the field, NotFound for sandbox or image, FailedPrecondition
            when the sandbox is not ready, AlreadyExists when this attempt has run,
            SignatureValidationFailed when the policy of now does not accept the image.
        Cancellation: when the last waiter leaves, everything is undone before this returns.
        Spec: CRI v1 CreateContainer.
        """
        sandbox = self._registry.sandbox(sandbox_id)
        about(sandbox.subject, config.name)
        if not sandbox.ready:
            raise FailedPrecondition(f"pod sandbox {sandbox.id[:12]} is not ready: run a new one")
        with wait("check the request"):
            features = await self._handlers.features_of(sandbox.record.handler)
            validate_container(
                config,
                sandbox.record.config,
                features,
                self._facts,
                minimum_memory_bytes=self._config.minimum_memory_bytes,
            )
        mode = self._seccomp_mode(sandbox, config)
        check_mode(mode, sandbox.record.handler, features.seccomp_notify)
        origin = await self._restores.origin(config.image)
        if origin is not None:
            _check_restorable(origin, sandbox, features, mode)
        image = origin.image if origin is not None else self._images.get(config.image)
        if image is None:
            raise NotFound(f"image {config.image!r} is not on this node: pull it first")
        if image.artifact is not None:
            raise FailedPrecondition(
                f"image {config.image!r} is an artifact of type {image.artifact.type!r}: "
                "it can be mounted as an image volume, but no container can be made from it"
            )
        volumes = [self._volume_image(mount, f"mounts[{n}].image") for n, mount in enumerate(config.mounts)]
        namespace = sandbox.record.key.namespace
        with span("image policy"):
            await self._admission.admit(image, config.user_specified_image or config.image, namespace)
            if origin is not None and origin.checkpoint is not None:
                await self._admission.admit(origin.checkpoint, config.image, namespace)
            for mount, volume in zip(config.mounts, volumes, strict=True):
                if volume is not None:
                    await self._admission.admit(volume, mount.image, namespace)
        key = ContainerKey(sandbox.id, config.name, config.attempt)
        container: Container = await self._operations.join(
            ("create", key),
            f"creating container {config.name} in {sandbox.id[:12]}",
            partial(self._create, sandbox, config, image, volumes, request, origin),
            abandoned=self._claims.abandon,
        )
        self._claims.answer(container)
        return container.id

    def _seccomp_mode(self, sandbox: PodSandbox, config: ContainerConfig) -> NotifyMode | None:
        """What is to be told of its system calls, by annotation or because the operator wishes so."""
        if config.security.privileged:  # it has no filter
            return None
        annotations = sandbox.record.config.annotations
        allowed = self._handlers.allowed_annotations(sandbox.record.handler, annotations)
        mode = notify_mode(annotations, config.name, allowed)
        wished = self._notifier.wished(sandbox.id, config.name)
        return NotifyMode.RECORD if wished else mode

    def _stop_signal(self, sandbox: PodSandbox, config: ContainerConfig, image: Image) -> str:
        """The client's word, an allowed annotation of the pod, the image's configuration, its annotation."""
        if config.stop_signal:
            return config.stop_signal
        annotations = sandbox.record.config.annotations
        allowed = self._handlers.allowed_annotations(sandbox.record.handler, annotations)
        asked = container_features(annotations, config.name, allowed, self._config.allowed_devices)
        of_image = image.config.stop_signal or image.config.annotations.get(STOP_SIGNAL, "")
        return asked.stop_signal or of_image or "SIGTERM"

    def _volume_image(self, mount: Mount, field: str) -> Image | None:
        """The image of an image volume, None for other mounts."""
        if not mount.image:
            return None
        image = self._images.get(mount.image)
        if image is None:
            raise ImageVolumeMountFailed(f"{field}: {mount.image!r} is not on this node: pull it first")
        return image

    async def _create(
        self,
        sandbox: PodSandbox,
        config: ContainerConfig,
        image: Image,
        volumes: Sequence[Image | None],
        request: bytes,
        origin: Origin | None,
        operation: Operation[Container],
    ) -> Container:
        key = ContainerKey(sandbox.id, config.name, config.attempt)
        existing = self._registry.container_of_key(key)
        if existing is not None:
            if existing.view.state is ContainerState.CREATED and existing.visible:
                return existing
            if existing.visible and existing.record.intent is not ContainerIntent.REMOVING:
                raise AlreadyExists(
                    f"container {existing.id[:12]} ({key}) has run already: "
                    "remove it, or ask with a higher attempt"
                )
            operation.stage = lambda: f"{existing.stage} of an earlier try"
            await self._remove(existing)
        if not sandbox.ready:
            raise FailedPrecondition(f"pod sandbox {sandbox.id[:12]} was stopped meanwhile: run a new one")
        container = self._new(sandbox, config, image, volumes, request, origin)
        operation.stage = lambda: container.stage
        self._registry.add_container(container)
        try:
            await self._climb(container)
        finally:
            if self._nri.enabled and container.record.intent is not ContainerIntent.CREATED:
                await self._nri.given_up(container)
            if container.record.intent is not ContainerIntent.CREATED and container.stage == "":
                self._registry.drop_container(container)
                container.tell_deleted()
            elif container.record.intent is ContainerIntent.CREATING:
                await self._show_half_made(container)
        if container.record.seccomp_mode == NotifyMode.RECORD:
            await _afterwards(container, partial(self._notifier.fulfilled, sandbox.id, config.name))
        if self._nri.enabled:
            await _afterwards(container, partial(self._nri.created, container))
        log.info("container created", id=container.id, name=config.name, pod=str(sandbox.record.key))
        return container

    async def _show_half_made(self, container: Container) -> None:
        """Let clients see, and remove, a container whose rollback did not reach the ground."""
        with trio.CancelScope(shield=True):
            try:
                await container.commit(intent=ContainerIntent.REMOVING)
            except Exception as error:  # the create's own error counts; a retry removes it first
                log.warning("half-made container not marked", id=container.id, error=str(error))

    def _new(
        self,
        sandbox: PodSandbox,
        config: ContainerConfig,
        image: Image,
        volumes: Sequence[Image | None],
        request: bytes,
        origin: Origin | None,
    ) -> Container:
        needed = [image, *(volume for volume in volumes if volume is not None)]
        if origin is not None and origin.checkpoint is not None:
            needed.append(origin.checkpoint)
        identity = secrets.token_hex(32)
        record = ContainerRecord(
            id=identity,
            key=ContainerKey(sandbox.id, config.name, config.attempt),
            request=request,
            config=config,
            created_at_ns=self._registry.next_container_time(sandbox, config.name, time.time_ns()),
            boot_id=self._facts.boot_id,
            intent=ContainerIntent.CREATING,
            image_id=image.id,
            chain_ids=tuple(dict.fromkeys(chain for one in needed for chain in one.chain_ids)),
            volume_images=tuple(volume.id if volume else "" for volume in volumes),
            cgroup=self._cgroups.oci_path(
                sandbox.record.config.cgroup_parent, identity, sandbox.record.cgroup_prefix
            ),
            log_path=log_path(sandbox.record.config, config),
            seccomp_mode=self._seccomp_mode(sandbox, config) or "",
            stop_signal=self._stop_signal(sandbox, config, image),
            resources=config.resources,
            restore=origin.restore if origin is not None else "",
        )
        container = Container(self._rows, record, sandbox, self._layout.bundle(identity), self._events)
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
            partial(self._start, container),
        )

    async def _start(self, container: Container, operation: Operation[None]) -> None:
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
        await self._stop(container, timeout_seconds)

    async def _stop(self, container: Container, timeout_seconds: float) -> None:
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

    async def kill(self, container: Container) -> None:
        """End a container at once, for a reason of noded's own."""
        await self._stop(container, 0.0)

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
            await self._stop(container, 0.0)

    # removing

    async def remove(self, name: str) -> None:
        """Kill the container if it lives and remove everything of it but its log.

        Idempotent; an unknown container is success. Spec: CRI v1 RemoveContainer.
        """
        container = self._registry.find_container(name)
        if container is None:
            return
        container.claim.named = True
        about(container.sandbox.subject, container.record.key.name)
        await self._operations.join(
            ("remove container", container.id),
            f"removing container {container.id[:12]}",
            partial(self._remove_operation, container),
        )

    async def _remove_operation(self, container: Container, operation: Operation[None]) -> None:
        operation.stage = lambda: container.stage
        await self._remove(container)

    async def _remove(self, container: Container) -> None:
        if container.record.intent is not ContainerIntent.REMOVING:
            await self._stop(container, 0.0)
        if self._registry.container_of_key(container.record.key) is container:
            await self._nri.removed(container)
        async with container.lock:
            if self._registry.container_of_key(container.record.key) is not container:
                return
            if container.record.intent is not ContainerIntent.REMOVING:
                await container.commit(intent=ContainerIntent.REMOVING)
            await descend(self._ladder.rungs, container)
            container.task_gone = True
            self._registry.drop_container(container)
            container.tell_deleted()
            needed = {container.record.image_id, *container.record.volume_images} - {""}
            if any(self._images.get(image) is None for image in needed):  # layers were kept for this one
                self._nursery.start_soon(self._sweep)
        log.info("container removed", id=container.id)

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


def _check_restorable(
    origin: Origin, sandbox: PodSandbox, features: RuntimeFeatures, mode: NotifyMode | None
) -> None:
    """Raises: Unimplemented for what no checkpoint can be restored into."""
    handler = sandbox.record.handler
    if not features.checkpoint:
        raise Unimplemented(
            f"runtime handler {handler!r} cannot restore {origin.restore}: its runtime cannot use CRIU"
        )
    if pod_user_namespace(sandbox) is not None:
        raise Unimplemented("containers of a pod with a user namespace cannot be restored from a checkpoint")
    if mode is not None:
        raise Unimplemented("what a restored container calls cannot be told: CRIU restores its own filters")


async def _afterwards(container: Container, act: Callable[[], Awaitable[None]]) -> None:
    """Do what follows the creation: the container is there to stay, so its client gets it all the same."""
    with trio.move_on_after(_AFTERWARDS_SECONDS, shield=True) as scope:
        try:
            await act()
        except Exception as error:
            log.warning("container created, but not all is done", id=container.id, error=str(error))
    if scope.cancelled_caught:
        log.warning("container created, but not all is done in time", id=container.id)


def _check_startable(container: Container) -> None:
    state = container.view.state
    if state is not ContainerState.CREATED:
        raise FailedPrecondition(
            f"container {container.id[:12]} is {state.name}, only a CREATED one can be started"
        )
    if not container.sandbox.ready:
        raise FailedPrecondition(f"the pod of container {container.id[:12]} was stopped")


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


def log_path(pod: PodConfig, container: ContainerConfig) -> str:
    """The absolute log path, "" when the client asked for none."""
    if not pod.log_directory or not container.log_path:
        return ""
    return str(PurePosixPath(pod.log_directory) / container.log_path)


def _stop_signal(container: Container) -> int:
    name = container.record.stop_signal
    number = signal_number(name)
    if number is None:
        log.warning("unknown stop signal, using SIGTERM", id=container.id, stop_signal=name)
        return int(signal.SIGTERM)
    return number
