"""From images to CRI messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from noded.model.image import FilesystemInfo, Image, ImageConfig, Usage
from noded.proto.runtime import v1

_HIGHEST_ID = 2**32 - 1


def entry(image: Image) -> v1.Image:
    """The image, in lists and in its status alike."""
    uid, username = _user(image.config.user)
    return v1.Image(
        id=image.id,
        repo_tags=list(image.tags),
        repo_digests=list(image.digests),
        size=image.size_bytes,
        uid=None if uid is None else v1.Int64Value(value=uid),
        username=username,
        spec=v1.ImageSpec(image=image.id, annotations=dict(image.config.annotations)),
        pinned=image.pinned,
    )


def details(image: Image) -> dict[str, Any]:
    """What `verbose` adds."""
    return {
        "manifestDigest": image.manifest_digest,
        "createdAtNs": image.created_at_ns,
        "config": _config(image.config),
        "layers": [asdict(layer) for layer in image.layers],
    }


def filesystems(info: FilesystemInfo) -> v1.ImageFsInfoResponse:
    return v1.ImageFsInfoResponse(
        image_filesystems=[_usage(info.image)], container_filesystems=[_usage(info.container)]
    )


def _usage(usage: Usage) -> v1.FilesystemUsage:
    return v1.FilesystemUsage(
        timestamp=usage.timestamp_ns,
        fs_id=v1.FilesystemIdentifier(mountpoint=usage.mountpoint),
        used_bytes=v1.UInt64Value(value=usage.used_bytes),
        inodes_used=v1.UInt64Value(value=usage.inodes_used),
    )


def _user(user: str) -> tuple[int | None, str]:
    """Split `USER[:GROUP]` into uid or name; neither means root to kubelet.

    kubelet decides runAsNonRoot by it, so a number that is no uid is a name, not a wrapped uid.
    """
    name = user.partition(":")[0]
    if name.isascii() and name.isdecimal() and int(name) <= _HIGHEST_ID:
        return int(name), ""
    return None, name


def _config(config: ImageConfig) -> dict[str, Any]:
    """The fields that the image sets."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {
        name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items() if value
    }
