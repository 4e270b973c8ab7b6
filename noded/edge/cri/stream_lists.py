"""The lists again, as streams of messages for nodes whose list exceeds one message."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from noded.edge.cri import filters
from noded.edge.cri.core import Containers, Images, Sandboxes
from noded.edge.cri.entries import Entries
from noded.edge.cri.images import SERVICE as IMAGE_SERVICE
from noded.edge.cri.info import SERVICE
from noded.edge.deadline import Deadline
from noded.edge.method import Method, server_stream
from noded.model.image import Image
from noded.model.views import ContainerView, SandboxView
from noded.proto.runtime import v1


class StreamListService:
    """Each stream shows the objects as they were when it began; an empty list has no message."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        containers: Containers,
        images: Images,
        sandbox_entries: Entries[SandboxView],
        container_entries: Entries[ContainerView],
        image_entries: Entries[Image],
    ) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._images = images
        self._sandbox_entries = sandbox_entries
        self._container_entries = container_entries
        self._image_entries = image_entries

    def methods(self) -> list[Method]:
        return [
            server_stream(
                SERVICE,
                "StreamPodSandboxes",
                v1.StreamPodSandboxesRequest,
                v1.StreamPodSandboxesResponse,
                self.pod_sandboxes,
            ),
            server_stream(
                SERVICE,
                "StreamContainers",
                v1.StreamContainersRequest,
                v1.StreamContainersResponse,
                self.containers,
            ),
            server_stream(
                IMAGE_SERVICE, "StreamImages", v1.StreamImagesRequest, v1.StreamImagesResponse, self.images
            ),
        ]

    async def pod_sandboxes(
        self, request: v1.StreamPodSandboxesRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        views = self._sandboxes.views()
        self._sandbox_entries.keep(views)
        for chunk in self._sandbox_entries.chunks(tuple(filters.sandboxes(views, request.filter))):
            yield chunk

    async def containers(
        self, request: v1.StreamContainersRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        views = self._containers.views()
        self._container_entries.keep(views)
        for chunk in self._container_entries.chunks(tuple(filters.containers(views, request.filter))):
            yield chunk

    async def images(
        self, request: v1.StreamImagesRequest, deadline: Deadline
    ) -> AsyncGenerator[bytes, None]:
        self._image_entries.keep(self._images.list())
        for chunk in self._image_entries.chunks(tuple(filters.images(self._images, request.filter))):
            yield chunk
