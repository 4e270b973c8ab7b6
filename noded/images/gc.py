"""What may be deleted: everything that nobody names. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from noded.model.image import Image, LayerRef


@dataclass(frozen=True, slots=True)
class Garbage:
    """Digests of blobs and chain IDs of layers that nothing refers to."""

    blobs: frozenset[str]
    layers: frozenset[str]


def find_garbage(
    *,
    images: Iterable[Image],
    leased: Collection[str],
    in_use: Collection[str] | None,
    blobs: Iterable[str],
    layers: Iterable[str],
    keep_blobs: bool = True,
) -> Garbage:
    """Compare what is stored with what is referred to.

    Args:
        images: all complete images.
        leased: digests and chain IDs that running pulls need.
        in_use: chain IDs below the root file systems of containers; None = not known (yet), then no
            layer is garbage.
        blobs, layers: what is stored.
        keep_blobs: whether images refer to their compressed layers, too.
    """
    needed_blobs = set(leased)
    needed_layers = set(leased)
    for image in images:
        needed_blobs.update((image.config_digest, image.manifest_digest))
        needed_blobs.update(reference.partition("@")[2] for reference in image.digests)
        needed_layers.update(image.chain_ids)
        if keep_blobs or image.artifact is not None:  # the files of an artifact are its blobs
            needed_blobs.update(layer.blob_digest for layer in image.layers)
    if in_use is None:
        return Garbage(frozenset(blobs) - needed_blobs, frozenset())
    return Garbage(frozenset(blobs) - needed_blobs, frozenset(layers) - needed_layers - set(in_use))


def chain_of(layers: Iterable[LayerRef]) -> frozenset[str]:
    """The chain IDs of an image's layers: what a container made from it has in use."""
    return frozenset(layer.chain_id for layer in layers)
