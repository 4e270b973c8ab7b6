"""The image side of the core, as one door: store, pulls, archives."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from noded.engine.refusals import told_of_the_disk
from noded.errors import InvalidArgument, NotFound
from noded.images.disk_usage import ImageUsage
from noded.images.library import Library
from noded.images.progress import PullProgress
from noded.images.pull import Puller
from noded.images.repair import Repairer, Verdict
from noded.images.stores import AdditionalStores
from noded.images.trust.admission import Admission
from noded.model.image import Credential, FilesystemInfo, Image


class Images:
    """What clients do with images."""

    def __init__(
        self,
        library: Library,
        puller: Puller,
        repairer: Repairer,
        stores: AdditionalStores,
        admission: Admission,
    ) -> None:
        self._admission = admission
        self._stores = stores
        self._library = library
        self._puller = puller
        self._repairer = repairer

    def get(self, reference: str) -> Image | None:
        """An image by id, unique prefix of an id, or reference; None when it is not here."""
        return self._library.get(reference)

    def list(self) -> Collection[Image]:
        """All complete images."""
        return self._library.list()

    async def pull(self, reference: str, credential: Credential | None, namespace: str) -> str:
        """Pull an image; return its id. Raises and cancels as `Puller.pull`."""
        await self._stores.refresh()  # somebody may have put the image there
        with told_of_the_disk(f"pulling {reference}"):
            return await self._puller.pull(reference, credential, namespace)

    async def read_stores(self) -> None:
        """Read the additional stores that have changed. Cancels as `AdditionalStores.refresh`."""
        await self._stores.refresh()

    async def remove(self, reference: str) -> None:
        """Remove an image with all its tags. Idempotent. Spec: CRI v1 RemoveImage."""
        with told_of_the_disk(f"removing {reference}"):
            await self._library.remove(reference)

    async def fs_info(self) -> FilesystemInfo:
        """Disk use of images and writable layers."""
        return await self._library.fs_info()

    def pulls(self) -> Sequence[PullProgress]:
        """All pulls that run now."""
        return self._puller.progress()

    async def usages(self) -> Sequence[ImageUsage]:
        """What each image takes on disk."""
        return await self._library.usages()

    async def verify(self, references: Sequence[str], *, deep: bool) -> Sequence[Verdict]:
        """Look for damage, and repair what can be repaired; no references = all images.

        Raises: NotFound for an image that is not here. Cancels as `Repairer.verify`.
        """
        images = [self._found(reference) for reference in references]
        return await self._repairer.verify(
            images or [*self._library.own(), *self._library.damaged()], deep=deep
        )

    async def load(self, path: str) -> Sequence[Image]:
        """Import an OCI layout or docker archive from a path on the node."""
        if not Path(path).is_absolute():
            raise InvalidArgument(f"path {path!r} must be absolute")
        from noded.images.archive import load_archive  # rarely used, as what follows

        with told_of_the_disk(f"loading {path}"):
            return await load_archive(Path(path), self._library, self._admission.accept)

    async def save(self, references: Sequence[str], path: str, format: str) -> None:
        """Export images to an archive on the node; `format` is "oci", "docker" or "store".

        A store is a directory that other nodes use as an additional image store; no references = all.
        """
        if not Path(path).is_absolute():
            raise InvalidArgument(f"path {path!r} must be absolute")
        images = [self._found(reference) for reference in references]
        if format == "store":
            from noded.images.export import export_store

            await export_store(images or self._library.own(), Path(path), self._library)
            return
        from noded.images.archive import save_archive

        await save_archive(images, Path(path), format, self._library)

    def _found(self, reference: str) -> Image:
        image = self._library.get(reference)
        if image is None:
            raise NotFound(f"image {reference!r} is not on this node")
        return image
