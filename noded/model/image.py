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
    """One layer of an image: the compressed blob and where its tree stands in the chain.

    Args:
        wrapped_keys, cipher_options: of an encrypted layer, see `noded.wire.ocicrypt`; both are public.
    """

    blob_digest: str
    diff_id: str
    chain_id: str
    size_bytes: int
    media_type: str
    wrapped_keys: str = ""
    cipher_options: str = ""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What makes an image an OCI artifact: files that no container is made from.

    Args:
        type: artifactType of its manifest, or the media type of its configuration.
        config_digest: of the configuration blob, which many artifacts may share.
    """

    type: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class Image:
    """A complete image in the local store.

    `id` is the digest of the image configuration (`sha256:...`); CRI uses it as image_ref
    everywhere. `tags` and `digests` are full references (`host/repo:tag`, `host/repo@sha256:..`).

    For an artifact `id` is the digest of the manifest, and `layers` are its files: each has its own
    blob, and all have the chain ID of the one tree that holds them.
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
    artifact: Artifact | None = None

    @property
    def config_digest(self) -> str:
        """Digest of the configuration blob."""
        return self.id if self.artifact is None else self.artifact.config_digest

    @property
    def chain_ids(self) -> tuple[str, ...]:
        """The trees that its files are in, from the bottom up."""
        return tuple(dict.fromkeys(layer.chain_id for layer in self.layers))


@dataclass(frozen=True, slots=True)
class Credential:
    """What a client gave to authenticate with a registry. Secrets never show in its repr.

    Args:
        identity_token: an OAuth2 refresh token, exchanged at the token endpoint.
        registry_token: a bearer token, sent as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of the filesystem at `mountpoint` one kind of data takes."""

    mountpoint: str
    used_bytes: int
    inodes_used: int
    timestamp_ns: int


@dataclass(frozen=True, slots=True)
class FilesystemInfo:
    """Usage by images (blobs and layers) and by the writable layers of containers."""

    image: Usage
    container: Usage
