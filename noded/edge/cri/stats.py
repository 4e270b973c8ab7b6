"""Resource usage: image filesystems, statistics and metrics of containers and pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator
from functools import cache

from noded.edge.cri import encode_image, encode_pod, metric_families, metric_family, metric_wire, stats_wire
from noded.edge.cri.core import Bridge, Containers, Images, Sandboxes, Stats
from noded.edge.cri.encode_container import metadata
from noded.edge.cri.entries import Entries
from noded.edge.cri.fields import required
from noded.edge.cri.images import SERVICE as IMAGE_SERVICE
from noded.edge.cri.info import SERVICE
from noded.edge.deadline import Deadline
from noded.edge.method import Method, server_stream, unary
from noded.engine.samples import ContainerSample, PodSample
from noded.errors import NotFound
from noded.model.states import SandboxState
from noded.model.views import ContainerView, SandboxView
from noded.proto.runtime import v1
from noded.wire.messages import encode
from noded.wire.protobuf import record

_PODS_PER_TURN = 8  # metrics of a pod take about 0.3 ms to encode; others get their turn in between
_CHUNK_BYTES = 2**20  # of one message of a stream


class StatsService:
    """Usage of the node's resources. Attributes are encoded once for each view."""

    def __init__(
        self, sandboxes: Sandboxes, containers: Containers, images: Images, stats: Stats, bridge: Bridge
    ) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._images = images
        self._stats = stats
        self._bridge = bridge
        # An entry is a record of field 1, and so are the attributes in both messages of stats.
        self._container_attributes = Entries(_container_attributes)
        self._pod_attributes = Entries(_pod_attributes)

    def methods(self) -> list[Method]:
        return [
            unary(
                IMAGE_SERVICE,
                "ImageFsInfo",
                v1.ImageFsInfoRequest,
                v1.ImageFsInfoResponse,
                self.image_filesystems,
            ),
            unary(
                SERVICE,
                "ContainerStats",
                v1.ContainerStatsRequest,
                v1.ContainerStatsResponse,
                self.container_stats,
            ),
            unary(
                SERVICE,
                "ListContainerStats",
                v1.ListContainerStatsRequest,
                v1.ListContainerStatsResponse,
                self.list_container_stats,
            ),
            server_stream(
                SERVICE,
                "StreamContainerStats",
                v1.StreamContainerStatsRequest,
                v1.StreamContainerStatsResponse,
                self.stream_container_stats,
            ),
            unary(
                SERVICE,
                "PodSandboxStats",
                v1.PodSandboxStatsRequest,
                v1.PodSandboxStatsResponse,
                self.pod_stats,
            ),
            unary(
                SERVICE,
                "ListPodSandboxStats",
                v1.ListPodSandboxStatsRequest,
                v1.ListPodSandboxStatsResponse,
                self.list_pod_stats,
            ),
            server_stream(
                SERVICE,
                "StreamPodSandboxStats",
                v1.StreamPodSandboxStatsRequest,
                v1.StreamPodSandboxStatsResponse,
                self.stream_pod_stats,
            ),
            unary(
                SERVICE,
                "ListMetricDescriptors",
                v1.ListMetricDescriptorsRequest,
                v1.ListMetricDescriptorsResponse,
                self.metric_descriptors,
            ),
            unary(
                SERVICE,
                "ListPodSandboxMetrics",
                v1.ListPodSandboxMetricsRequest,
                v1.ListPodSandboxMetricsResponse,
                self.list_pod_metrics,
            ),
            server_stream(
                SERVICE,
                "StreamPodSandboxMetrics",
                v1.StreamPodSandboxMetricsRequest,
                v1.StreamPodSandboxMetricsResponse,
                self.stream_pod_metrics,
            ),
        ]

    async def image_filesystems(
        self, request: v1.ImageFsInfoRequest, deadline: Deadline
    ) -> v1.ImageFsInfoResponse:
        info = await self._bridge.call(self._images.fs_info, deadline_seconds=deadline.budget_seconds())
        return encode_image.filesystems(info)

    # containers

    async def container_stats(self, request: v1.ContainerStatsRequest, deadline: Deadline) -> bytes:
        view = self._containers.view(required(request.container_id, "container_id"))
        records = await self._container_records([view], deadline)
        if not records:
            raise NotFound(f"container {view.id!r} was removed meanwhile")
        return records[0]

    async def list_container_stats(self, request: v1.ListContainerStatsRequest, deadline: Deadline) -> bytes:
        views = self._containers.views()
        self._container_attributes.keep(views)
        return b"".join(await self._container_records(_containers(views, request.filter), deadline))

    async def stream_container_stats(
        self, request: v1.StreamContainerStatsRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        views = self._containers.views()
        self._container_attributes.keep(views)
        for chunk in _chunks(await self._container_records(_containers(views, request.filter), deadline)):
            yield chunk

    async def _container_records(self, views: Collection[ContainerView], deadline: Deadline) -> list[bytes]:
        """A record of field 1 for each container, as all three answers have it."""
        budget = deadline.budget_seconds()
        samples = await self._bridge.call(self._stats.containers, views, deadline_seconds=budget)
        return [record(1, message) for message in self._encoded(samples)]

    def _encoded(self, samples: Iterable[ContainerSample]) -> Iterator[bytes]:
        mount_point = self._stats.mount_point.encode(errors="replace")
        for sample in samples:
            yield stats_wire.container(sample, self._container_attributes.of(sample.view), mount_point)

    # pods

    async def pod_stats(self, request: v1.PodSandboxStatsRequest, deadline: Deadline) -> bytes:
        view = self._sandboxes.view(required(request.pod_sandbox_id, "pod_sandbox_id"))
        records = await self._pod_records([view], deadline)
        if not records:
            raise NotFound(f"pod sandbox {view.id!r} was removed meanwhile")
        return records[0]

    async def list_pod_stats(self, request: v1.ListPodSandboxStatsRequest, deadline: Deadline) -> bytes:
        return b"".join(await self._pod_records(self._ready_pods(request.filter), deadline))

    async def stream_pod_stats(
        self, request: v1.StreamPodSandboxStatsRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        for chunk in _chunks(await self._pod_records(self._ready_pods(request.filter), deadline)):
            yield chunk

    def _ready_pods(self, wanted: v1.PodSandboxStatsFilter | None) -> Collection[SandboxView]:
        views = self._sandboxes.views()
        self._pod_attributes.keep(views)
        self._container_attributes.keep(self._containers.views())
        return _pods(views, wanted)

    async def _pod_records(self, views: Collection[SandboxView], deadline: Deadline) -> list[bytes]:
        budget = deadline.budget_seconds()
        samples = await self._bridge.call(self._stats.pods, views, deadline_seconds=budget)
        return [record(1, self._pod(sample)) for sample in samples]

    def _pod(self, sample: PodSample) -> bytes:
        attributes = self._pod_attributes.of(sample.view)
        return stats_wire.pod(sample, attributes, self._encoded(sample.containers))

    # metrics

    async def metric_descriptors(self, request: v1.ListMetricDescriptorsRequest, deadline: Deadline) -> bytes:
        return _descriptors()

    async def list_pod_metrics(self, request: v1.ListPodSandboxMetricsRequest, deadline: Deadline) -> bytes:
        return b"".join(await self._metric_records(deadline))

    async def stream_pod_metrics(
        self, request: v1.StreamPodSandboxMetricsRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        for chunk in _chunks(await self._metric_records(deadline)):
            yield chunk

    async def _metric_records(self, deadline: Deadline) -> list[bytes]:
        views = self._sandboxes.views()
        budget = deadline.budget_seconds()
        pods, filesystem = await self._bridge.call(self._stats.details, views, deadline_seconds=budget)
        records = []
        for index, pod in enumerate(pods, start=1):
            moment = metric_family.Moment(at_ns=pod.at_ns, filesystem=filesystem)
            records.append(record(1, metric_wire.pod(pod, moment)))
            if index % _PODS_PER_TURN == 0:
                await asyncio.sleep(0)
        return records


@cache
def _descriptors() -> bytes:
    return encode(v1.ListMetricDescriptorsResponse(descriptors=metric_families.descriptors()))


def _container_attributes(view: ContainerView) -> v1.ContainerAttributes:
    return v1.ContainerAttributes(
        id=view.id,
        metadata=metadata(view.config),
        labels=dict(view.config.labels),
        annotations=dict(view.config.annotations),
    )


def _pod_attributes(view: SandboxView) -> v1.PodSandboxAttributes:
    return v1.PodSandboxAttributes(
        id=view.id,
        metadata=encode_pod.metadata(view),
        labels=dict(view.config.labels),
        annotations=dict(view.config.annotations),
    )


def _containers(
    views: Collection[ContainerView], wanted: v1.ContainerStatsFilter | None
) -> Collection[ContainerView]:
    if wanted is None:
        return views
    selector = wanted.label_selector.items()
    return [
        view
        for view in views
        if view.id.startswith(wanted.id)
        and view.sandbox_id.startswith(wanted.pod_sandbox_id)
        and all(view.config.labels.get(key) == value for key, value in selector)
    ]


def _pods(views: Collection[SandboxView], wanted: v1.PodSandboxStatsFilter | None) -> Collection[SandboxView]:
    """The pods that pass; of a pod that is not ready there is nothing to count."""
    ready = [view for view in views if view.state is SandboxState.READY]
    if wanted is None:
        return ready
    selector = wanted.label_selector.items()
    return [
        view
        for view in ready
        if view.id.startswith(wanted.id)
        and all(view.config.labels.get(key) == value for key, value in selector)
    ]


def _chunks(records: Iterable[bytes]) -> Iterator[bytes]:
    """Several messages of about 1 MiB, none for an empty list."""
    chunk: list[bytes] = []
    size = 0
    for one in records:
        if chunk and size + len(one) > _CHUNK_BYTES:
            yield b"".join(chunk)
            chunk, size = [], 0
        chunk.append(one)
        size += len(one)
    if chunk:
        yield b"".join(chunk)
