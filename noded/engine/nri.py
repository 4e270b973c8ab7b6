"""The engine's side of NRI: which event is told when, with what, and what comes of the answers.

Nothing of it costs anything while no plugin is connected: the messages and all that handles them
are imported when the first one comes.

Events of creation that pass while nobody listens are remembered until the object is visible: a plugin
that connects in between is told of the object when it is synchronized, so none is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import trio

from noded.config import NriConfig
from noded.engine.container import Container
from noded.engine.nri_objects import Namespaces, Objects
from noded.engine.nri_wishes import Stop, Update, Wishes
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.errors import FailedPrecondition
from noded.images.library import Library
from noded.model.host import HostFacts
from noded.model.pod import Resources

if TYPE_CHECKING:
    from noded.engine.nri_trace import Inject
    from noded.nri.events import Kind
    from noded.nri.service import Service

log = structlog.get_logger(__name__)

_GIVEN_UP_SECONDS = 10.0  # for all plugins to hear that a creation failed; its client waits meanwhile


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
        self._objects = Objects(registry, images)
        self._wishes = Wishes(swap_accounting=facts.swap_accounting)
        # Told of each call of a plugin that has ended: plugin, method, result, seconds.
        self.observe: Callable[[str, str, str, float], None] = lambda *_: None
        self._service: Service | None = None
        self._begun: set[str] = set()  # told of, or would have been, and not visible yet
        self._pods_stopped: set[str] = set()
        self._stops: dict[str, trio.Event] = {}  # set once a container's end was told

    def use(self, update: Update, stop: Stop, namespaces: Namespaces) -> None:
        """Give what itself needs this door.

        Args:
            update, stop: change and stop a container by its id.
            namespaces: kinds and paths of a sandbox's pinned namespaces.
        """
        self._wishes.use(update, stop)
        self._objects.namespaces = namespaces

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

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Start the installed plugins, take connections of others, until cancelled.

        Started once the installed ones take part, or have failed to in their time.
        """
        from noded.nri.doors import let_in

        async with trio.open_nursery() as plugins:
            self._wishes.evict_in(plugins)
            await let_in(self._config, self._ready_service, plugins, task_status)

    def _ready_service(self) -> Service:
        if self._service is None:
            from noded.nri.service import Node, Service

            snapshot = partial(self._objects.all, self._begun)
            node = Node(snapshot=snapshot, update=self._wishes.grant)
            self._service = Service(self._config, node, self.observe)
        return self._service

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
                self._objects.pod(sandbox),
                overhead_linux_resources=from_cri(overhead),
                linux_resources=from_cri(resources),
            )

    async def pod_updated(self, sandbox: PodSandbox) -> None:
        """Tell plugins that the resources of a pod have changed."""
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
        creation = await self._service.create(
            self._objects.pod(container.sandbox), self._objects.shown(container, spec)
        )
        await self._wishes.follow("a new container", creation.updates)
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
        from noded.engine.nri_trace import replayed

        shown = partial(self._objects.shown, container, spec)
        swap = self._facts.swap_accounting
        return await replayed(container.ref.bundle, shown, spec, inject, swap_accounting=swap)

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
        """Tell plugins that a container runs."""
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
            self._objects.pod(container.sandbox), await self._objects.container(container), limits
        )
        await self._wishes.follow(f"an update of {container.id[:12]}", updates)
        if bytes(limits) == before:
            return None
        changed = to_cri(limits, oom_score_adj=resources.oom_score_adj)
        return to_oci(limits, swap_accounting=self._facts.swap_accounting), changed

    async def updated(self, container: Container) -> None:
        """Tell plugins that the limits of a container have changed."""
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
            updates = await self._service.stop(
                self._objects.pod(container.sandbox), await self._objects.container(container)
            )
            await self._wishes.follow(f"the end of {container.id[:12]}", updates)
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
        shown = await self._objects.container(container) if container is not None else None
        await self._service.tell(kind, self._objects.pod(sandbox), shown)

    async def _note(self, kind: Kind, sandbox: PodSandbox, container: Container | None = None) -> None:
        """Tell of what cannot be refused."""
        try:
            await self._tell(kind, sandbox, container)
        except FailedPrecondition as error:
            log.warning("NRI plugin refuses what has happened", id=sandbox.id, error=str(error))
