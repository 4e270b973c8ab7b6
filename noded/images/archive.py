"""Loading and saving images as files on the node."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from noded.errors import InvalidArgument
from noded.images.archive_files import ArchiveFiles, open_archive
from noded.images.archive_read import Found, copy_layers, find_images
from noded.images.archive_write import write_archive
from noded.images.library import Library
from noded.model.image import Image, LayerRef
from noded.wire import digest as digests
from noded.wire import reference as references
from noded.wire.reference import Reference

FORMATS = {
    "oci": "oci",
    "oci-archive": "oci",
    "oci-dir": "oci-dir",
    "docker": "docker",
    "docker-archive": "docker",
}
_RELEASE_SECONDS = 60.0


Accept = Callable[[Sequence[Reference], Sequence[str], str], Awaitable[None]]


async def load_archive(path: Path, library: Library, accept: Accept | None = None) -> list[Image]:
    """Bring all images of an archive that suit this node into the local store.

    Read are OCI layouts as directory or tar, and the tars of `docker save`, compressed or not.

    Args:
        accept: (names, digests of the manifest, namespace): raises for an image that must not be used.

    Raises: InvalidArgument, NotFound, DataLoss naming what is wrong in the archive; ResourceExhausted;
        what `accept` raises.
    Cancellation: safe; images that were complete by then stay, bytes of others do not.
    """
    owner = f"load-{secrets.token_hex(8)}"
    context = open_archive(path, library.content.scratch)
    try:
        archive = await trio.to_thread.run_sync(context.__enter__)
        try:
            found = await trio.to_thread.run_sync(find_images, archive, path)
            if accept is not None:
                for one in found:
                    await accept(_names(one), [digests.of(one.manifest_data)], "")
            return [await _load(archive, one, library, owner) for one in found]
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(context.__exit__, None, None, None)
    finally:
        with trio.move_on_after(_RELEASE_SECONDS, shield=True):
            await library.release(owner)


async def save_archive(images: Sequence[Image], path: Path, format: str, library: Library) -> None:
    """Write images to a file or directory that other tools read.

    Args:
        path: replaced when it is complete; of a directory only its parent may exist.
        format: "oci" or "docker" (a tar), "oci-dir" (a directory).

    Raises: InvalidArgument; FailedPrecondition when compressed layers are not kept; by errno.
    Cancellation: safe, nothing is left.
    """
    form = FORMATS.get(format)
    if form is None:
        raise InvalidArgument(f"archive format {format!r} is not one of {', '.join(FORMATS)}")
    if not images:
        raise InvalidArgument("name at least one image to save")
    owner = f"save-{secrets.token_hex(8)}"
    try:
        for image in images:
            needed = [image.config_digest, image.manifest_digest, *_digests(image.layers)]
            await library.lease(needed, owner)
        await trio.to_thread.run_sync(write_archive, images, path, form, library.content)
    finally:
        with trio.move_on_after(_RELEASE_SECONDS, shield=True):
            await library.release(owner)


async def _load(archive: ArchiveFiles, found: Found, library: Library, owner: str) -> Image:
    content, layers = library.content, library.layers
    config_digest, manifest_digest = digests.of(found.config_data), digests.of(found.manifest_data)
    await library.lease([config_digest, manifest_digest, *_digests(found.layers)], owner)
    await trio.to_thread.run_sync(content.put, found.manifest_data)
    await trio.to_thread.run_sync(content.put, found.config_data)
    await trio.to_thread.run_sync(copy_layers, archive, found, content)
    if found.artifact is not None:
        await layers.assemble(found.layers, found.artifact_files, content)
    else:
        await _unpack_all(found, library)
    await layers.publish(found.layers)
    repositories = dict.fromkeys(references.parse(name).repository for name in found.names)
    image = Image(
        id=config_digest if found.artifact is None else manifest_digest,
        manifest_digest=manifest_digest,
        tags=tuple(name for name in found.names if "@" not in name),
        digests=tuple(f"{name}@{manifest_digest}" for name in repositories) if found.genuine else (),
        size_bytes=sum(layer.size_bytes for layer in found.layers)
        + len(found.config_data)
        + len(found.manifest_data),
        layers=found.layers,
        config=found.config,
        created_at_ns=time.time_ns(),
        artifact=found.artifact,
    )
    return await library.publish(image)


async def _unpack_all(found: Found, library: Library) -> None:
    failures: list[Exception] = []
    async with trio.open_nursery() as nursery:
        for layer in sorted(found.layers, key=lambda layer: -layer.size_bytes):
            nursery.start_soon(_unpack, layer, library, failures, nursery.cancel_scope)
    if failures:
        raise failures[0]


async def _unpack(
    layer: LayerRef, library: Library, failures: list[Exception], scope: trio.CancelScope
) -> None:
    """The first failure ends the others: they would be in vain."""
    source = -1
    try:
        source = await trio.to_thread.run_sync(library.content.open, layer.blob_digest)
        await library.layers.unpack(layer, source)
    except Exception as error:
        failures.append(error)
        scope.cancel()
    finally:
        if source >= 0:
            os.close(source)


def _names(found: Found) -> list[Reference]:
    return [references.parse(name) for name in found.names]


def _digests(layers: Sequence[LayerRef]) -> set[str]:
    return {digest for layer in layers for digest in (layer.blob_digest, layer.chain_id)}
