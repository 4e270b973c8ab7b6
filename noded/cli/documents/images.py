"""The image store."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Image(TypedDict):
    """One image of this node."""

    id: str  # digest of its configuration
    tags: list[str]  # NAME:TAG
    digests: list[str]  # NAME@DIGEST
    size_bytes: int  # of its compressed layers and configuration
    pinned: bool  # whether garbage collection leaves it alone


Images = list[Image]


class ImageInspected(TypedDict):
    """`noded images inspect`."""

    id: str  # digest of its configuration
    tags: list[str]  # NAME:TAG
    digests: list[str]  # NAME@DIGEST
    sizeBytes: int  # of its compressed layers and configuration
    pinned: bool  # whether garbage collection leaves it alone
    manifestDigest: str  # of the manifest that it was pulled by
    createdAtNs: int  # when it came to this node, nanoseconds since the epoch
    config: dict[str, Any]  # its configuration, as the OCI image specification has it
    layers: list[dict[str, Any]]  # from the lowest to the uppermost
    artifactType: NotRequired[str]  # of what is not an image


class Pulled(TypedDict):
    """`noded images pull`."""

    id: str  # digest of its configuration
    reference: str  # as it was asked for


class ImagesRemoved(TypedDict):
    """`noded images rm`."""

    removed: list[str]  # as they were asked for


class ImageVerified(TypedDict):
    """What `noded images verify` found of one image."""

    id: str  # digest of its configuration
    references: list[str]  # its names
    usable: bool  # whether containers can be made from it
    repaired: bool  # whether damage was found and mended
    problems: list[str]  # what was found


ImagesVerified = list[ImageVerified]


class ImageUsage(TypedDict):
    """What one image takes."""

    id: str  # digest of its configuration
    references: list[str]  # its names
    used_bytes: int  # on disk, with what others share
    unique_bytes: int  # what its removal frees
    in_use: bool  # by a container


class DiskUsage(TypedDict):
    """`noded images df`."""

    images: list[ImageUsage]  # the largest first
    images_bytes: int  # all of them
    containers_bytes: int  # all writable layers


class ImageLoaded(TypedDict):
    """One image that was loaded."""

    id: str  # digest of its configuration
    references: list[str]  # its names


ImagesLoaded = list[ImageLoaded]


class ImagesSaved(TypedDict):
    """`noded images save`."""

    path: str  # the file that was written
    references: list[str]  # as they were asked for
    format: str  # oci or docker


class StoreExported(TypedDict):
    """`noded images export-store`."""

    path: str  # the directory that was written to
    references: list[str]  # as they were asked for; empty for all
