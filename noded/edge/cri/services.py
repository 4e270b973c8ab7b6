"""All 41 methods of CRI v1, wired to a core."""

from __future__ import annotations

from noded.edge.cri import encode_container, encode_image, encode_pod
from noded.edge.cri.checkpoints import CheckpointService
from noded.edge.cri.containers import ContainerService
from noded.edge.cri.core import Bridge, Core
from noded.edge.cri.entries import Entries
from noded.edge.cri.events import EventService
from noded.edge.cri.exec import ExecService, StreamUrls
from noded.edge.cri.images import ImageService
from noded.edge.cri.info import InfoService
from noded.edge.cri.sandboxes import SandboxService
from noded.edge.cri.stats import StatsService
from noded.edge.cri.statuses import Statuses
from noded.edge.cri.stream_lists import StreamListService
from noded.edge.method import Method


def cri_methods(core: Core, bridge: Bridge, urls: StreamUrls | None = None) -> list[Method]:
    """The RuntimeService and the ImageService."""
    pods, containers, images = (
        Entries(encode_pod.entry),
        Entries(encode_container.entry),
        Entries(encode_image.entry),
    )
    statuses = Statuses(core.sandboxes, core.containers, core.images)
    return [
        *InfoService(core.node, bridge).methods(),
        *SandboxService(core.sandboxes, core.containers, bridge, pods, statuses).methods(),
        *ContainerService(
            core.containers, core.running, core.sandboxes, bridge, containers, statuses
        ).methods(),
        *CheckpointService(core.containers, core.checkpoints, bridge).methods(),
        *ExecService(core.containers, core.running, bridge, core.sandboxes, urls).methods(),
        *ImageService(core.images, bridge, images).methods(),
        *StatsService(core.sandboxes, core.containers, core.images, core.stats, bridge).methods(),
        *StreamListService(core.sandboxes, core.containers, core.images, pods, containers, images).methods(),
        *EventService(core.events, statuses).methods(),
    ]
