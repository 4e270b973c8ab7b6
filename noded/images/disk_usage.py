"""How much of the disk each image takes, and how much of that it shares. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from noded.model.image import Image


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """One image.

    Args:
        used_bytes: on disk: its documents, kept blobs and unpacked layers.
        unique_bytes: what removing it alone would free, if no container used it.
        in_use: whether containers stand on one of its layers.
    """

    image: Image
    used_bytes: int
    unique_bytes: int
    in_use: bool


def image_usages(
    images: Iterable[Image],
    blobs: Mapping[str, int],
    layers: Mapping[str, int],
    in_use: Collection[str],
) -> list[ImageUsage]:
    """The usage of each image.

    Args:
        blobs: bytes on disk by digest.
        layers: bytes on disk by chain ID.
        in_use: chain IDs below containers.
    """
    images = list(images)
    # Two name spaces: a first layer that is not compressed has one digest for its blob and its tree.
    sizes = {("blob", key): size for key, size in blobs.items()}
    sizes |= {("layer", key): size for key, size in layers.items()}
    parts = [_parts(image) & sizes.keys() for image in images]
    owners = Counter(part for each in parts for part in each)
    return [
        ImageUsage(
            image,
            sum(sizes[part] for part in each),
            sum(sizes[part] for part in each if owners[part] == 1),
            not set(image.chain_ids).isdisjoint(in_use),
        )
        for image, each in zip(images, parts, strict=True)
    ]


def _parts(image: Image) -> set[tuple[str, str]]:
    named = (name.partition("@")[2] for name in image.digests)
    blobs = {image.manifest_digest, image.config_digest, *named, *(one.blob_digest for one in image.layers)}
    return {*(("blob", digest) for digest in blobs), *(("layer", chain) for chain in image.chain_ids)}
