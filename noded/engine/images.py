"""The image side of the core, as one door: store, pulls, archives."""

from __future__ import annotations

import builtins
from collections.abc import Collection, Sequence
from pathlib import Path

from noded.errors import InvalidArgument, NotFound
from noded.images.archive import load_archive, save_archive
from noded.images.library import Library
from noded.images.pull import Puller
from noded.model.image import Credential, FilesystemInfo, Image


class Images:
    """What clients do with images."""

    def __init__(self, library: Library, puller: Puller) -> None:
        self._library = library
        self._puller = puller

    def get(self, reference: str) -> Image | None:
        """An image by id, unique prefix of an id, or reference; None when it is not here."""
        return self._library.get(reference)

    def list(self) -> Collection[Image]:
        """All complete images."""
        return self._library.list()

    async def pull(self, reference: str, credential: Credential | None, namespace: str) -> str:
        """Pull an image; return its id. Raises and cancels as `Puller.pull`."""
        return await self._puller.pull(reference, credential, namespace)

    async def remove(self, reference: str) -> None:
        """Remove an image with all its tags. Idempotent. Spec: CRI v1 RemoveImage."""
        await self._library.remove(reference)

    async def fs_info(self) -> FilesystemInfo:
        """Disk use of images and writable layers."""
        return await self._library.fs_info()

    async def load(self, path: str) -> Sequence[Image]:
        """Import an OCI layout or docker archive from a path on the node."""
        if not Path(path).is_absolute():
            raise InvalidArgument(f"path {path!r} must be absolute")
        return await load_archive(Path(path), self._library)

    async def save(self, references: Sequence[str], path: str, format: str) -> None:  # noqa: A002
        """Export images to an archive on the node; `format` is "oci" or "docker"."""
        if not Path(path).is_absolute():
            raise InvalidArgument(f"path {path!r} must be absolute")
        images: builtins.list[Image] = []
        for reference in references:
            image = self._library.get(reference)
            if image is None:
                raise NotFound(f"image {reference!r} is not on this node")
            images.append(image)
        await save_archive(images, Path(path), format, self._library)
