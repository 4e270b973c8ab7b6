"""The engine's side of NRI: which event is told when, with what, and what comes of the answers.

Nothing of it costs anything while no plugin is connected: the messages and all that handles them
are imported when the first one comes.

Events of creation that pass while nobody listens are remembered until the object is visible: a plugin
that connects in between is told of the object when it is synchronized, so none is lost.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
import trio

from noded.config import NriConfig
from noded.engine.container import Container
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.errors import FailedPrecondition, NodedError
from noded.host import sockets
from noded.images.library import Library
from noded.model.host import HostFacts
from noded.model.pod import Resources
from noded.model.views import ContainerState

if TYPE_CHECKING:
    from noded.nri.events import Kind
    from noded.nri.launch import Installed
    from noded.nri.merge import Updates
    from noded.nri.service import Service
    from noded.proto.nri.pkg.api.v1alpha1 import Container as NriContainer
    from noded.proto.nri.pkg.api.v1alpha1 import (
        ContainerEviction,
        ContainerUpdate,
        LinuxResources,
    )
    from noded.proto.nri.pkg.api.v1alpha1 import PodSandbox as NriPod

log = structlog.get_logger(__name__)

_UPDATE_SECONDS = 10.0  # for one container's update or eviction that a plugin wants
_EVICTED_GRACE_SECONDS = 10.0
_GIVEN_UP_SECONDS = 10.0  # for all plugins to hear that a creation failed; its client waits meanwhile

Update = Callable[[str, dict[str, Any], Resources], Awaitable[None]]
Stop = Callable[[str, float], Awaitable[None]]
Inject = Callable[[Mapping[str, Any], Sequence[str]], Awaitable[Mapping[str, Any]]]
Namespaces = Callable[[PodSandbox], dict[str, str]]


class Nri:
    """The door to NRI plugins."""

    def __init__(
        self,
        config: NriConfig,
        facts: HostFacts,
        registry: Registry,
        images: Library,
    ) -> None:
        self._config = config
        self._facts = facts
        self._registry = registry
        self._images = images
        self._service: Service | None = None
        self._begun: set[str] = set()  # told of, or would have been, and not visible yet
        self._pods_stopped: set[str] = set()
        self._stops: dict[str, trio.Event] = {}  # set once a container's end was told
        self._tasks: trio.Nursery | None = None
        self._update: Update | None = None
        self._stop: Stop | None = None
        self._namespaces: Namespaces = lambda sandbox: {}

    def use(self, update: Update, stop: Stop, namespaces: Namespaces) -> None:
        """Give what itself needs this door.

        Args:
            update, stop: change and stop a container by its id.
            namespaces: kinds and paths of a sandbox's pinned namespaces.
        """
        self._update, self._stop, self._namespaces = update, stop, namespaces

    @property
    def enabled(self) -> bool:
        return self._config.enable

    @property
    def active(self) -> bool:
        """Whether a plugin is to be told of events."""
        return self._service is not None and self._service.active

    def report(self) -> list[dict[str, Any]]:
        """The connected plugins for people."""
        return self._service.report() if self._service is not None else []

    # plugins

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Start the installed plugins, take connections of others, until cancelled.

        Started once the installed ones take part, or have failed to in their time.
        """
        from noded.nri.launch import find_installed

        installed = await trio.to_thread.run_sync(
            find_installed, self._config.plugin_path, self._config.plugin_config_path
        )
        async with trio.open_nursery() as plugins:
            self._tasks = plugins
            await self._start_installed(installed, plugins)
            listener = None if self._config.disable_connections else await self._listen()
            task_status.started()
            if listener is None:
                await trio.sleep_forever()
                return
            from noded.nri.listener import accept_plugins

            try:
                await accept_plugins(listener, self._serve)
            finally:
                listener.close()
                sockets.unlink(self._config.socket)

    async def _start_installed(self, installed: Sequence[Installed], plugins: trio.Nursery) -> None:
        settled = [trio.Event() for _ in installed]
        for one, event in zip(installed, settled, strict=True):
            plugins.start_soon(self._ready_service().serve_installed, one, event.set)
        for event in settled:
            await event.wait()

    async def _listen(self) -> socket.socket | None:
        try:
            return await trio.to_thread.run_sync(
                lambda: sockets.bind(self._config.socket, field="nri.socket")
            )
        except (NodedError, OSError) as error:  # another runtime of this node has it: pods matter more
            log.warning("NRI plugins cannot connect", error=str(error))
            return None

    async def _serve(self, stream: trio.SocketStream, pid: int) -> None:
        await self._ready_service().serve(stream, pid)

    def _ready_service(self) -> Service:
        if self._service is None:
            from noded.nri.service import Node, Service

            self._service = Service(self._config, Node(snapshot=self._snapshot, update=self._apply))
        return self._service

    async def _snapshot(self) -> tuple[list[NriPod], list[NriContainer]]:
        pods = [
            self._pod(sandbox)
            for sandbox in self._registry.sandboxes()
            if sandbox.made or sandbox.id in self._begun
        ]
        live = (ContainerState.CREATED, ContainerState.RUNNING)
        containers = [
            one
            for one in self._registry.containers()
            if (one.made and one.view.state in live) or one.id in self._begun
        ]
        return pods, [await self._container(one) for one in containers]

    # pods

    async def run_pod(self, sandbox: PodSandbox) -> None:
        """A sandbox is about to be ready. Raises: FailedPrecondition when a plugin refuses."""
        self._begun.add(sandbox.id)
        if self.active:
            from noded.nri import events

            await self._tell(events.RUN_POD, sandbox)

    def pod_ready(self, sandbox: PodSandbox) -> None:
        """It is visible."""
        self._begun.discard(sandbox.id)

    async def update_pod(
        self, sandbox: PodSandbox, overhead: Resources | None, resources: Resources | None
    ) -> None:
        """Its resources are about to change. Raises: FailedPrecondition when a plugin refuses."""
        if self.active:
            from noded.nri import events
            from noded.nri.limits import from_cri

            assert self._service is not None
            await self._service.tell(
                events.UPDATE_POD,
                self._pod(sandbox),
                overhead_linux_resources=from_cri(overhead),
                linux_resources=from_cri(resources),
            )

    async def pod_updated(self, sandbox: PodSandbox) -> None:
        if self.active:
            from noded.nri import events

            await self._note(events.UPDATED_POD, sandbox)

    async def stop_pod(self, sandbox: PodSandbox) -> None:
        """Its containers have ended, it is about to be taken down. Told once."""
        if self.active and sandbox.id not in self._pods_stopped:
            from noded.nri import events

            self._pods_stopped.add(sandbox.id)
            await self._note(events.STOP_POD, sandbox)

    async def remove_pod(self, sandbox: PodSandbox) -> None:
        """It is about to go."""
        self._begun.discard(sandbox.id)
        self._pods_stopped.discard(sandbox.id)
        if self.active:
            from noded.nri import events

            await self._note(events.REMOVE_POD, sandbox)

    async def give_up_pod(self, sandbox: PodSandbox) -> None:
        """Its creation has failed; plugins that were told of it are told of its end."""
        if sandbox.id in self._begun:
            await self.remove_pod(sandbox)

    # containers

    async def create(
        self, container: Container, spec: dict[str, Any], inject: Inject
    ) -> tuple[dict[str, Any], Resources | None]:
        """Let plugins adjust a new container.

        Args:
            inject: puts CDI devices, given by their names, into a spec.

        Returns: its spec, and the limits that plugins set, None = none.
        Raises: FailedPrecondition when a plugin refuses, two contradict each other, or what they want
            cannot be applied.
        """
        self._begun.add(container.id)
        if not self.active:
            return spec, None
        from noded.nri.adjust import adjusted
        from noded.nri.limits import to_cri

        assert self._service is not None
        container.stage = "NRI plugins"
        creation = await self._service.create(self._pod(container.sandbox), self._shown(container, spec))
        await self._follow("a new container", creation.updates)
        if not creation.changed:
            return spec, None
        linux = creation.adjust.linux
        assert linux is not None
        if linux.cgroups_path:
            raise FailedPrecondition(
                f"an NRI plugin wants cgroups_path {linux.cgroups_path!r}: "
                "noded keeps a container in the cgroup of its pod"
            )
        from noded.engine.nri_trace import keep

        await keep(container.ref.bundle, creation.adjustments)
        devices = [device.name for device in creation.adjust.CDI_devices]
        if devices:
            spec = dict(await inject(spec, devices))
        spec = adjusted(spec, creation.adjust, swap_accounting=self._facts.swap_accounting)
        if linux.resources is None and linux.oom_score_adj is None:
            return spec, None
        score = linux.oom_score_adj.value if linux.oom_score_adj is not None else 0
        return spec, to_cri(linux.resources, oom_score_adj=score) if linux.resources else None

    async def replayed(
        self, container: Container, spec: dict[str, Any], inject: Inject
    ) -> list[tuple[str, dict[str, Any]]]:
        """What the plugins have made of a container's spec: (plugin, the spec after it), in their order.

        Nobody is asked: the answers are those that were given when the container was made.
        """
        from noded.engine.nri_trace import kept

        adjustments = await kept(container.ref.bundle)
        if not adjustments:
            return []
        from noded.nri.adjust import adjusted
        from noded.nri.merge import Creation
        from noded.proto.nri.pkg.api.v1alpha1 import CreateContainerResponse

        found = []
        for count in range(1, len(adjustments) + 1):
            creation = Creation(self._shown(container, spec))
            for plugin, adjust in adjustments[:count]:
                creation.add(plugin, CreateContainerResponse(adjust=adjust))
            after = dict(await inject(spec, [device.name for device in creation.adjust.CDI_devices]))
            after = adjusted(after, creation.adjust, swap_accounting=self._facts.swap_accounting)
            found.append((adjustments[count - 1][0], after))
        return found

    async def created(self, container: Container) -> None:
        """It is visible."""
        self._begun.discard(container.id)
        if self.active:
            from noded.nri import events

            await self._note(events.CREATED, container.sandbox, container)

    async def start(self, container: Container) -> None:
        """It is about to be started. Raises: FailedPrecondition when a plugin refuses."""
        if self.active:
            from noded.nri import events

            await self._tell(events.START, container.sandbox, container)

    async def started(self, container: Container) -> None:
        if self.active:
            from noded.nri import events

            await self._note(events.STARTED, container.sandbox, container)

    async def update(
        self, container: Container, resources: Resources
    ) -> tuple[dict[str, Any], Resources] | None:
        """Let plugins change the limits that a client wants for a container.

        Returns: the object for the runtime and the limits for the record; None = as the client wants.
        Raises: FailedPrecondition when a plugin refuses or two contradict each other.
        """
        if not self.active:
            return None
        from noded.nri.limits import from_cri, to_cri, to_oci

        assert self._service is not None
        limits = from_cri(resources)
        assert limits is not None
        before = bytes(limits)
        updates = await self._service.update(
            self._pod(container.sandbox), await self._container(container), limits
        )
        await self._follow(f"an update of {container.id[:12]}", updates)
        if bytes(limits) == before:
            return None
        changed = to_cri(limits, oom_score_adj=resources.oom_score_adj)
        return to_oci(limits, swap_accounting=self._facts.swap_accounting), changed

    async def updated(self, container: Container) -> None:
        if self.active:
            from noded.nri import events

            await self._note(events.UPDATED, container.sandbox, container)

    async def stopped(self, container: Container) -> None:
        """It has ended, by itself or not. Told once; returns when it was told."""
        told = self._stops.get(container.id)
        if told is not None:
            await told.wait()
            return
        if not self.active:
            return
        told = self._stops[container.id] = trio.Event()
        assert self._service is not None
        try:
            updates = await self._service.stop(self._pod(container.sandbox), await self._container(container))
            await self._follow(f"the end of {container.id[:12]}", updates)
        except FailedPrecondition as error:
            log.warning("NRI plugin refuses what has happened", id=container.id, error=str(error))
        finally:
            told.set()

    async def given_up(self, container: Container) -> None:
        """Its creation has failed; plugins that were told of it are told of its end, within 10 s.

        Cancellation: shielded, it is the way down of a creation that may have been cancelled.
        """
        with trio.move_on_after(_GIVEN_UP_SECONDS, shield=True) as deadline:
            await self.removed(container)
        if deadline.cancelled_caught:
            log.warning(
                "NRI plugins were not told in time that a container is not to be",
                id=container.id,
                seconds=_GIVEN_UP_SECONDS,
            )

    async def removed(self, container: Container) -> None:
        """It is about to go. Told after its end; forgotten also when no plugin is left to tell."""
        begun = container.id in self._begun
        self._begun.discard(container.id)
        told = self._stops.pop(container.id, None)
        if told is not None:
            await told.wait()
        if self.active and (begun or container.made):
            from noded.nri import events

            await self._note(events.REMOVE, container.sandbox, container)

    # telling

    async def _tell(self, kind: Kind, sandbox: PodSandbox, container: Container | None = None) -> None:
        assert self._service is not None
        shown = await self._container(container) if container is not None else None
        await self._service.tell(kind, self._pod(sandbox), shown)

    async def _note(self, kind: Kind, sandbox: PodSandbox, container: Container | None = None) -> None:
        """Tell of what cannot be refused."""
        try:
            await self._tell(kind, sandbox, container)
        except FailedPrecondition as error:
            log.warning("NRI plugin refuses what has happened", id=sandbox.id, error=str(error))

    def _pod(self, sandbox: PodSandbox) -> NriPod:
        from noded.nri.objects import pod_sandbox

        return pod_sandbox(sandbox.record, sandbox.view, self._namespaces(sandbox), sandbox.view.pid)

    async def _container(self, container: Container) -> NriContainer:
        data = b"{}"
        with suppress(OSError):  # not made yet, or gone already
            data = await trio.Path(container.ref.bundle / "config.json").read_bytes()
        return self._shown(container, json.loads(data))

    def _shown(self, container: Container, spec: dict[str, Any]) -> NriContainer:
        from noded.nri.objects import container as shown

        image = self._images.get(container.record.image_id)
        digests = image.digests if image is not None else ()
        return shown(
            container.record,
            container.view,
            spec,
            image_name=container.record.config.user_specified_image or container.record.config.image,
            image_digest=digests[0] if digests else "",
        )

    # what plugins want of other containers

    async def _follow(self, cause: str, updates: Updates) -> None:
        await self._apply(cause, list(updates.by_id.values()), updates.evictions)

    async def _apply(
        self, cause: str, updates: Sequence[ContainerUpdate], evictions: Sequence[ContainerEviction]
    ) -> list[ContainerUpdate]:
        """Update and evict containers; return the updates that failed and must not."""
        failed = []
        for update in updates:
            resources = update.linux.resources if update.linux is not None else None
            if resources is None:
                continue
            try:
                with trio.fail_after(_UPDATE_SECONDS):
                    await self._apply_limits(update.container_id, resources)
            except (NodedError, trio.TooSlowError) as error:
                log.warning(
                    "an update by an NRI plugin failed", id=update.container_id, cause=cause, error=str(error)
                )
                if not update.ignore_failure:
                    failed.append(update)
        for eviction in evictions:  # a grace period is longer than a request should wait
            assert self._tasks is not None
            self._tasks.start_soon(self._evict, cause, eviction)
        return failed

    async def _apply_limits(self, container_id: str, limits: LinuxResources) -> None:
        from noded.nri.limits import to_cri, to_oci

        assert self._update is not None
        changes = to_oci(limits, swap_accounting=self._facts.swap_accounting)
        await self._update(container_id, changes, to_cri(limits))

    async def _evict(self, cause: str, eviction: ContainerEviction) -> None:
        assert self._stop is not None
        log.warning(
            "an NRI plugin evicts a container", id=eviction.container_id, cause=cause, reason=eviction.reason
        )
        try:
            await self._stop(eviction.container_id, _EVICTED_GRACE_SECONDS)
        except Exception as error:
            log.warning("not evicted", id=eviction.container_id, error=str(error))
