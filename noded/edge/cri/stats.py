"""Resource usage: the image filesystems; statistics and metrics of pods are refused for now."""

from __future__ import annotations

from noded.edge.cri import encode_image
from noded.edge.cri.core import Bridge, Images
from noded.edge.cri.images import SERVICE as IMAGE_SERVICE
from noded.edge.cri.info import SERVICE
from noded.edge.cri.unimplemented import refuse, refuse_stream
from noded.edge.deadline import Deadline
from noded.edge.method import Method, server_stream, unary
from noded.proto.runtime import v1

_NO_STATS = "statistics are not implemented in this version of noded: read the cgroups of the pod"
_NO_METRICS = "metrics are not implemented in this version of noded: scrape kubelet's cAdvisor endpoint"


class StatsService:
    """Usage of the node's resources."""

    def __init__(self, images: Images, bridge: Bridge) -> None:
        self._images = images
        self._bridge = bridge

    def methods(self) -> list[Method]:
        stats, stats_stream = refuse(_NO_STATS), refuse_stream(_NO_STATS)
        metrics, metrics_stream = refuse(_NO_METRICS), refuse_stream(_NO_METRICS)
        return [
            unary(
                IMAGE_SERVICE,
                "ImageFsInfo",
                v1.ImageFsInfoRequest,
                v1.ImageFsInfoResponse,
                self.image_filesystems,
            ),
            unary(SERVICE, "ContainerStats", v1.ContainerStatsRequest, v1.ContainerStatsResponse, stats),
            unary(
                SERVICE,
                "ListContainerStats",
                v1.ListContainerStatsRequest,
                v1.ListContainerStatsResponse,
                stats,
            ),
            server_stream(
                SERVICE,
                "StreamContainerStats",
                v1.StreamContainerStatsRequest,
                v1.StreamContainerStatsResponse,
                stats_stream,
            ),
            unary(SERVICE, "PodSandboxStats", v1.PodSandboxStatsRequest, v1.PodSandboxStatsResponse, stats),
            unary(
                SERVICE,
                "ListPodSandboxStats",
                v1.ListPodSandboxStatsRequest,
                v1.ListPodSandboxStatsResponse,
                stats,
            ),
            server_stream(
                SERVICE,
                "StreamPodSandboxStats",
                v1.StreamPodSandboxStatsRequest,
                v1.StreamPodSandboxStatsResponse,
                stats_stream,
            ),
            unary(
                SERVICE,
                "ListMetricDescriptors",
                v1.ListMetricDescriptorsRequest,
                v1.ListMetricDescriptorsResponse,
                metrics,
            ),
            unary(
                SERVICE,
                "ListPodSandboxMetrics",
                v1.ListPodSandboxMetricsRequest,
                v1.ListPodSandboxMetricsResponse,
                metrics,
            ),
            server_stream(
                SERVICE,
                "StreamPodSandboxMetrics",
                v1.StreamPodSandboxMetricsRequest,
                v1.StreamPodSandboxMetricsResponse,
                metrics_stream,
            ),
        ]

    async def image_filesystems(
        self, request: v1.ImageFsInfoRequest, deadline: Deadline
    ) -> v1.ImageFsInfoResponse:
        info = await self._bridge.call(self._images.fs_info, deadline_seconds=deadline.budget_seconds())
        return encode_image.filesystems(info)
