"""The part of noded's own service that is about images: details, damage, disk use, running pulls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator

from noded.edge.cri import encode_image
from noded.edge.cri.core import Bridge, Images
from noded.edge.cri.fields import required
from noded.edge.deadline import Deadline
from noded.edge.method import Method, server_stream, unary
from noded.errors import NotFound
from noded.images.progress import PullProgress
from noded.model.image import Image
from noded.proto.noded.admin import v1

SERVICE = "noded.admin.v1.Admin"
_PERIOD_MS = 200
_SHORTEST_PERIOD_MS = 50


class ImageAdmin:
    """Translates the administration RPCs about images."""

    def __init__(self, images: Images, bridge: Bridge) -> None:
        self._images = images
        self._bridge = bridge

    def methods(self) -> list[Method]:
        return [
            unary(SERVICE, "InspectImage", v1.InspectImageRequest, v1.InspectImageResponse, self.inspect),
            unary(SERVICE, "VerifyImages", v1.VerifyImagesRequest, v1.VerifyImagesResponse, self.verify),
            unary(SERVICE, "ImageUsage", v1.ImageUsageRequest, v1.ImageUsageResponse, self.usage),
            server_stream(SERVICE, "WatchPulls", v1.WatchPullsRequest, v1.WatchPullsResponse, self.watch),
        ]

    async def inspect(self, request: v1.InspectImageRequest, deadline: Deadline) -> v1.InspectImageResponse:
        image = self._images.get(required(request.reference, "reference"))
        if image is None:
            raise NotFound(f"image {request.reference!r} is not on this node")
        details = {
            "id": image.id,
            "tags": image.tags,
            "digests": image.digests,
            "sizeBytes": image.size_bytes,
            "pinned": image.pinned,
            **encode_image.details(image),
        }
        if image.artifact is not None:
            details["artifactType"] = image.artifact.type
        return v1.InspectImageResponse(json=json.dumps(details))

    async def verify(self, request: v1.VerifyImagesRequest, deadline: Deadline) -> v1.VerifyImagesResponse:
        async def verify() -> v1.VerifyImagesResponse:
            verdicts = await self._images.verify(tuple(request.references), deep=request.deep)
            return v1.VerifyImagesResponse(
                images=[
                    v1.VerifiedImage(
                        id=verdict.image.id,
                        references=_names(verdict.image),
                        problems=list(verdict.problems),
                        usable=verdict.usable,
                        repaired=verdict.repaired,
                    )
                    for verdict in verdicts
                ]
            )

        return await self._bridge.call(verify, deadline_seconds=deadline.budget_seconds())

    async def usage(self, request: v1.ImageUsageRequest, deadline: Deadline) -> v1.ImageUsageResponse:
        budget = deadline.budget_seconds()
        usages = await self._bridge.call(self._images.usages, deadline_seconds=budget)
        info = await self._bridge.call(self._images.fs_info, deadline_seconds=budget)
        return v1.ImageUsageResponse(
            images=[
                v1.UsedByImage(
                    id=one.image.id,
                    references=_names(one.image),
                    used_bytes=one.used_bytes,
                    unique_bytes=one.unique_bytes,
                    in_use=one.in_use,
                )
                for one in usages
            ],
            images_bytes=info.image.used_bytes,
            containers_bytes=info.container.used_bytes,
        )

    async def watch(
        self, request: v1.WatchPullsRequest, deadline: Deadline
    ) -> AsyncGenerator[v1.WatchPullsResponse, None]:
        """Ends with the client only: the counters are plain memory, so looking costs next to nothing."""
        period = max(request.period_ms or _PERIOD_MS, _SHORTEST_PERIOD_MS) / 1000
        while True:
            yield v1.WatchPullsResponse(pulls=[_pull(pull) for pull in self._images.pulls()])
            await asyncio.sleep(period)


def _pull(pull: PullProgress) -> v1.RunningPull:
    return v1.RunningPull(
        reference=pull.reference,
        started_at_ns=pull.started_at_ns,
        layers=[
            v1.PulledLayer(
                digest=layer.digest,
                phase=str(layer.phase),
                done_bytes=layer.done_bytes,
                total_bytes=layer.total_bytes,
            )
            for layer in pull.layers
        ],
    )


def _names(image: Image) -> list[str]:
    return [*image.tags, *image.digests]
