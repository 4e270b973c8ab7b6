"""Images: list, status, pull, remove."""

from __future__ import annotations

import base64
import binascii

from noded.edge.cri import encode_image, filters, verbose
from noded.edge.cri.core import Bridge, Images
from noded.edge.cri.entries import Entries
from noded.edge.cri.fields import present, required
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.errors import InvalidArgument
from noded.model.image import Credential, Image
from noded.model.timeline import Subject
from noded.proto.runtime import v1
from noded.tracing.spans import about

SERVICE = "runtime.v1.ImageService"


class ImageService:
    """Translates image RPCs; `entries` is shared with the streamed lists."""

    def __init__(self, images: Images, bridge: Bridge, entries: Entries[Image]) -> None:
        self._images = images
        self._bridge = bridge
        self._entries = entries

    def methods(self) -> list[Method]:
        return [
            unary(SERVICE, "ListImages", v1.ListImagesRequest, v1.ListImagesResponse, self.list),
            unary(SERVICE, "ImageStatus", v1.ImageStatusRequest, v1.ImageStatusResponse, self.status),
            unary(SERVICE, "PullImage", v1.PullImageRequest, v1.PullImageResponse, self.pull),
            unary(SERVICE, "RemoveImage", v1.RemoveImageRequest, v1.RemoveImageResponse, self.remove),
        ]

    async def list(self, request: v1.ListImagesRequest, deadline: Deadline) -> bytes:
        self._entries.keep(self._images.list())
        return self._entries.message(filters.images(self._images, request.filter))

    async def status(self, request: v1.ImageStatusRequest, deadline: Deadline) -> v1.ImageStatusResponse:
        image = self._images.get(_reference(request.image))
        if image is None:
            return v1.ImageStatusResponse()
        return v1.ImageStatusResponse(
            image=encode_image.entry(image),
            info=verbose.info(encode_image.details(image)) if request.verbose else {},
        )

    async def pull(self, request: v1.PullImageRequest, deadline: Deadline) -> v1.PullImageResponse:
        sandbox = request.sandbox_config
        metadata = None if sandbox is None else sandbox.metadata
        if metadata is not None:
            about(Subject(metadata.namespace, metadata.name, metadata.uid))
        image_id = await self._bridge.call(
            self._images.pull,
            _reference(request.image),
            credential(request.auth),
            "" if metadata is None else metadata.namespace,
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.PullImageResponse(image_ref=image_id)

    async def remove(self, request: v1.RemoveImageRequest, deadline: Deadline) -> v1.RemoveImageResponse:
        await self._bridge.call(
            self._images.remove, _reference(request.image), deadline_seconds=deadline.budget_seconds()
        )
        return v1.RemoveImageResponse()


def credential(auth: v1.AuthConfig | None) -> Credential | None:
    """The credential of a pull, None when the client sent none.

    Raises: InvalidArgument when `auth` is not base64 of `username:password`; the message never
        holds the value.
    """
    if auth is None:
        return None
    username, password = auth.username, auth.password
    if auth.auth and not username:
        username, password = _basic(auth.auth)
    if not (username or password or auth.identity_token or auth.registry_token):
        return None
    return Credential(username, password, auth.identity_token, auth.registry_token)


def _basic(text: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise InvalidArgument("auth.auth: is not base64 of username:password")
    # docker login of old padded with NUL bytes.
    return username, password.rstrip("\0")


def _reference(image: v1.ImageSpec | None) -> str:
    return required(present(image, "image").image, "image.image")
