"""Samples of what pods and containers use, read from cgroups and network namespaces on demand.

No monitor is asked, and a runtime only where the host does not see what its containers do. A sweep
over all containers runs in one worker thread, so that a slow kernel holds up nothing else; what is
gone or has never run is reported without numbers.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
import trio

from noded.engine.container import Container
from noded.engine.registry import Registry
from noded.engine.samples import ContainerDetail, ContainerSample, Filesystem, PodDetail, PodSample
from noded.engine.sandbox import PodSandbox
from noded.engine.stats_disk import LayerUsage
from noded.engine.stats_rate import CpuRate
from noded.engine.usage import ToldUsage
from noded.errors import NodedError
from noded.host import cgroup_names, cgroup_stats, mountinfo, network_stats, process_counts
from noded.host.cgroup_samples import CgroupSampler
from noded.host.cgroup_stats import CgroupUsage
from noded.host.cgroups import Cgroups
from noded.host.network_stats import InterfaceStats
from noded.model.host import CgroupDriver
from noded.model.paths import Layout
from noded.model.states import ContainerState, SandboxState
from noded.model.views import ContainerView, SandboxView

log = structlog.get_logger(__name__)

_SWEEPS_AT_ONCE = 2
_SLACK = 64
_LIVE = (ContainerState.CREATED, ContainerState.RUNNING)


class _Tracked:
    """What is kept of an object between samples."""

    __slots__ = ("place", "rate")

    def __init__(self, place: str) -> None:
        self.place = place
        self.rate = CpuRate()


class Stats:
    """Takes samples; the only state is the last CPU counter of each object."""

    def __init__(
        self,
        *,
        told: ToldUsage,
        registry: Registry,
        cgroups: Cgroups,
        sampler: CgroupSampler,
        disk: LayerUsage,
        layout: Layout,
    ) -> None:
        self._told = told
        self._registry = registry
        self._cgroups = cgroups
        self._sampler = sampler
        self._disk = disk
        self._layout = layout
        self._tracked: dict[str, _Tracked] = {}
        self._sweeps = trio.CapacityLimiter(_SWEEPS_AT_ONCE)
        self._mount_point = ""
        self._device = ""

    @property
    def mount_point(self) -> str:
        """Where the writable layers are; "" before the first sample."""
        return self._mount_point

    # CRI stats

    async def containers(self, views: Collection[ContainerView]) -> list[ContainerSample]:
        """Sample containers; those that are gone meanwhile are left out.

        Cancellation: waits for the sweep in progress, a tenth of a millisecond per container.
        """
        known = [(view, found) for view in views if (found := self._container(view.id)) is not None]
        await self._refresh_disk(container.id for _, container in known)
        await self._told.refresh(container for _, container in known)
        places = [self._live_place(view, container) for view, container in known]
        usages = await trio.to_thread.run_sync(self._read, places, limiter=self._sweeps)
        samples = [self._sample(one, usage) for (_, one), usage in zip(known, usages, strict=True)]
        self._sweep()
        return samples

    async def pods(self, views: Collection[SandboxView]) -> list[PodSample]:
        """Sample pods with their containers; a pod that is not ready has attributes only."""
        pods = [(view, found) for view in views if (found := self._sandbox(view.id)) is not None]
        inside = [self._containers(sandbox) if _ready(view) else [] for view, sandbox in pods]
        shared = self._parents()
        places = [self._pod_place(sandbox, shared) if _ready(view) else "" for view, sandbox in pods]
        containers = [one for group in inside for one in group]
        await self._refresh_disk(one.id for one in containers)
        await self._told.refresh(containers)
        container_places = [self._live_place(one.view, one) for one in containers]

        def read() -> tuple[
            list[CgroupUsage | None],
            list[CgroupUsage | None],
            list[int],
            list[tuple[InterfaceStats, ...] | None],
        ]:
            return (
                self._read(places),
                self._read(container_places),
                [len(self._sampler.pids(place)) if place else 0 for place in container_places],
                self._networks([sandbox if _ready(view) else None for view, sandbox in pods]),
            )

        own, usages, processes, networks = await trio.to_thread.run_sync(read, limiter=self._sweeps)
        now = time.time_ns()
        read_all = zip(containers, usages, processes, strict=True)
        sampled = {
            one.id: (self._sample(one, usage), self._processes(one, count)) for one, usage, count in read_all
        }
        samples = []
        for (view, sandbox), group, usage, interfaces in zip(pods, inside, own, networks, strict=True):
            if not _ready(view):
                samples.append(PodSample(view, now))
                continue
            members = [sampled[one.id] for one in group]
            if usage is None:
                parts = [sample.usage for sample, _ in members if sample.usage is not None]
                usage = cgroup_stats.total(parts, now, time.monotonic_ns())
            samples.append(
                PodSample(
                    view=view,
                    at_ns=now,
                    usage=usage,
                    nano_cores=self._rate(view.id, usage),
                    interfaces=interfaces,
                    default_interface=_default_interface(sandbox),
                    processes=sum(count for _, count in members),
                    containers=tuple(sample for sample, _ in members),
                )
            )
        self._sweep()
        return samples

    # metrics

    async def details(self, views: Collection[SandboxView]) -> tuple[list[PodDetail], Filesystem | None]:
        """Read what metrics tell of READY pods and their live containers; others are left out."""
        pods = [
            (view, found) for view in views if _ready(view) and (found := self._sandbox(view.id)) is not None
        ]
        inside = [self._containers(sandbox) for _, sandbox in pods]
        await self._refresh_disk(one.id for group in inside for one in group)
        await self._told.refresh(one for group in inside for one in group)
        shared = self._parents()
        places = [self._pod_place(sandbox, shared) for _, sandbox in pods]
        jobs = [[(one.view, self._live_place(one.view, one)) for one in group] for group in inside]

        def read() -> tuple[list[PodDetail], Filesystem | None]:
            now = time.time_ns()
            networks = self._networks([sandbox for _, sandbox in pods])
            result = []
            for (view, _), place, group, interfaces in zip(pods, places, jobs, networks, strict=True):
                own = self._sampler.detail(place) if place else None
                details = (self._detail(one, where) for one, where in group if where)
                members = tuple(one for one in details if one is not None)
                result.append(PodDetail(view, place, now, own, interfaces, members))
            return result, self._filesystem()

        answer = await trio.to_thread.run_sync(read, limiter=self._sweeps)
        self._sweep()
        return answer

    def _detail(self, view: ContainerView, place: str) -> ContainerDetail | None:
        detail = self._sampler.detail(place)
        if detail is None:
            return None
        if (told := self._told.known(view.id)) is not None:
            detail = replace(detail, usage=told)
        descriptors, sockets = process_counts.count_descriptors(detail.pids)
        limit = process_counts.open_files_soft_limit(view.pid) if view.pid in detail.pids else None
        return ContainerDetail(view, place, detail, self._disk.known(view.id), descriptors, sockets, limit)

    # one object

    def _sample(self, container: Container, usage: CgroupUsage | None) -> ContainerSample:
        view = container.view
        if usage is not None and self._told.told(container):
            usage = self._told.known(container.id)
        rate = self._rate(view.id, usage) if usage is not None else None
        return ContainerSample(view, usage, rate, self._disk.known(view.id))

    def _processes(self, container: Container, count: int) -> int:
        if not self._told.told(container):
            return count
        return self._told.processes(container.id) or 0

    def _rate(self, identity: str, usage: CgroupUsage) -> int | None:
        tracked = self._tracked.get(identity)
        if tracked is None or usage.cpu_ns is None:
            return None
        return tracked.rate.update(usage.monotonic_ns, usage.cpu_ns)

    def _container(self, identity: str) -> Container | None:
        return self._registry.find_container(identity)

    def _sandbox(self, identity: str) -> PodSandbox | None:
        return self._registry.find_sandbox(identity)

    def _containers(self, sandbox: PodSandbox) -> list[Container]:
        return [
            one for one in self._registry.containers_of(sandbox) if one.visible and one.view.state in _LIVE
        ]

    def _live_place(self, view: ContainerView, container: Container) -> str:
        """The container's cgroup, "" when it has ended and its cgroup with it."""
        if view.state not in _LIVE:
            return ""
        tracked = self._tracked.get(view.id)
        if tracked is None:
            tracked = self._tracked[view.id] = _Tracked(self._container_place(container))
        return tracked.place

    def _container_place(self, container: Container) -> str:
        try:
            return self._cgroups.place(container.record.cgroup)
        except NodedError:  # made under another cgroup driver: one container must not fail a list
            return ""

    def _parents(self) -> Counter[str]:
        """How many READY pods have each cgroup parent."""
        return Counter(one.record.config.cgroup_parent for one in self._registry.sandboxes() if one.ready)

    def _pod_place(self, sandbox: PodSandbox, shared: Counter[str]) -> str:
        """The pod's own cgroup, "" when it shares its parent with other pods or has none."""
        parent = sandbox.record.config.cgroup_parent
        tracked = self._tracked.get(sandbox.id)
        if tracked is None:
            tracked = self._tracked[sandbox.id] = _Tracked(parent_place(self._cgroups.driver, parent))
        return tracked.place if shared[parent] == 1 else ""

    # in the worker thread

    def _read(self, places: Sequence[str]) -> list[CgroupUsage | None]:
        return [self._sampler.usage(place) if place else None for place in places]

    def _networks(self, sandboxes: Sequence[PodSandbox | None]) -> list[tuple[InterfaceStats, ...] | None]:
        pins: dict[int, Path] = {
            index: self._layout.namespace_pin(sandbox.id, "net")
            for index, sandbox in enumerate(sandboxes)
            if sandbox is not None and not sandbox.record.config.host_network
        }
        try:
            read = dict(zip(pins, network_stats.read_many(list(pins.values())), strict=True))
        except NodedError as error:
            log.warning("network counters not read", error=str(error))
            read = {}
        return [read.get(index) for index in range(len(sandboxes))]

    def _filesystem(self) -> Filesystem | None:
        directory = self._layout.root / "containers"
        try:
            found = os.statvfs(directory)
            if not self._device:
                self._device = _device_of(directory)
        except OSError:
            return None
        return Filesystem(self._device, found.f_blocks * found.f_frsize, found.f_files, found.f_ffree)

    # housekeeping

    async def _refresh_disk(self, identities: Iterable[str]) -> None:
        if not self._mount_point:
            self._mount_point = await trio.to_thread.run_sync(self._disk.mount_point)
        await self._disk.refresh(tuple(identities))

    def _sweep(self) -> None:
        """Forget the samples of objects that are gone, if there are many."""
        containers = {one.id for one in self._registry.containers()}
        self._disk.keep(containers)
        self._told.keep(containers)
        alive = containers | {one.id for one in self._registry.sandboxes()}
        if len(self._tracked) > len(alive) + _SLACK:
            self._tracked = {key: value for key, value in self._tracked.items() if key in alive}


def parent_place(driver: CgroupDriver, parent: str) -> str:
    """Where a pod's cgroup parent is, "" for a pod without one."""
    if not parent:
        return ""
    try:
        if driver is CgroupDriver.SYSTEMD:
            place = cgroup_names.expand_slice(cgroup_names.parent_slice(parent))
        else:
            place = cgroup_names.parent_path(parent)
    except NodedError:  # made under the other driver: one pod must not fail a list
        return ""
    return "" if place == "/" else place


def _ready(view: SandboxView) -> bool:
    return view.state is SandboxState.READY


def _default_interface(sandbox: PodSandbox) -> str:
    attachments = sandbox.record.attachments
    return attachments[0].ifname if attachments else ""


def _device_of(directory: Path) -> str:
    """What is mounted at the file system of `directory`, as the mount table names it."""
    path = f"{os.path.realpath(directory)}/"
    found = mountinfo.MountEntry(0, 0, "", "", frozenset(), 0, 0, "", "", frozenset())
    for entry in mountinfo.parse_mountinfo(mountinfo.read_mountinfo()):
        inside = path.startswith(entry.mount_point.rstrip("/") + "/")
        if inside and len(entry.mount_point) >= len(found.mount_point):  # the later one is on top
            found = entry
    return found.source
