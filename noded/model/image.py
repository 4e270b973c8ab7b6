"""Images as values: what the OCI image configuration says and what the store keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """The runtime-relevant part of an OCI image configuration (image-spec config.md)."""

    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    os: str = "linux"
    architecture: str = ""


@dataclass(frozen=True, slots=True)
class LayerRef:
    """One layer of an image: the compressed blob and where its tree stands in the chain."""

    blob_digest: str
    diff_id: str
    chain_id: str
    size_bytes: int
    media_type: str


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image in the local store.

    `id` is the digest of the image configuration (`sha256:...`); CRI uses it as image_ref
    everywhere. `tags` and `digests` are full references (`host/repo:tag`, `host/repo@sha256:..`).
    """

    id: str
    manifest_digest: str
    tags: tuple[str, ...]
    digests: tuple[str, ...]
    size_bytes: int
    layers: tuple[LayerRef, ...]
    config: ImageConfig
    pinned: bool = False
    created_at_ns: int = 0
