"""Image manifests, indexes and configurations, from bytes to checked values. Pure.

Understood: OCI image manifest and index (image-spec v1.1), Docker image manifest version 2 schema 2
and manifest list. A document that could be read as both a manifest and an index is refused: two
tools would run different images from one digest (CVE-2021-41190).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.image import ImageConfig, LayerRef
from noded.wire import digest as digests
from noded.wire.descriptor import (
    Descriptor,
    as_list,
    as_object,
    as_text,
    as_text_list,
    as_text_map,
    parse_descriptor,
)
from noded.wire.ocicrypt import ENCRYPTED, JWE_KEYS, PUBLIC_OPTIONS

MAX_MANIFEST_BYTES: Final = 4 << 20  # what distribution-spec asks registries to accept
MAX_CONFIG_BYTES: Final = 4 << 20  # the same; the largest real ones are far below 1 MiB
MAX_LAYERS: Final = 500  # OVL_MAX_STACK in the kernel: more can never be mounted
MAX_INDEX_ENTRIES: Final = 10_000

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG: Final = "application/vnd.docker.container.image.v1+json"
ACCEPT: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST)

_MANIFESTS: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
_INDEXES: Final = frozenset({OCI_INDEX, DOCKER_LIST})
_SCHEMA_1: Final = "application/vnd.docker.distribution.manifest.v1+"
_LAYERS: Final = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_COMPRESSIONS: Final = ("", "+gzip", ".gzip", "+zstd", ".zstd")
LAYER_MEDIA_TYPES: Final = frozenset(base + suffix for base in _LAYERS for suffix in _COMPRESSIONS)


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image for one platform, or an artifact. Layers from the bottom up."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)
    artifact_type: str = ""


@dataclass(frozen=True, slots=True)
class Index:
    """Manifests for several platforms."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConfigDocument:
    """An image configuration: the part a container is made from, and its layers' diff IDs."""

    config: ImageConfig
    diff_ids: tuple[str, ...]


def parse_manifest(data: bytes, content_type: str = "") -> Manifest | Index:
    """Read a manifest or index.

    Args:
        content_type: what the registry called it; decides only when the document itself does not.

    Raises: InvalidArgument naming the wrong field; FailedPrecondition for schema 1.
    """
    fields = as_object(_json(data, "manifest", MAX_MANIFEST_BYTES), "manifest")
    declared = as_text(fields.get("mediaType") or "", "mediaType")
    content_type = content_type.partition(";")[0].strip().lower()
    if _is_schema_1(fields, declared or content_type):
        raise FailedPrecondition(
            "the image has the retired Docker schema 1 format: push it again with a current tool, "
            "for example `skopeo copy --format v2s2`"
        )
    if fields.get("schemaVersion") != 2:
        raise InvalidArgument(f"schemaVersion is {fields.get('schemaVersion')!r}, not 2")
    has_index, has_manifest = "manifests" in fields, "config" in fields or "layers" in fields
    if has_index and has_manifest:
        raise InvalidArgument("manifest has both manifests and config or layers: it means two things at once")
    media_type = declared or (content_type if content_type in _MANIFESTS | _INDEXES else "")
    media_type = media_type or (OCI_INDEX if has_index else OCI_MANIFEST)
    if media_type in _INDEXES:
        return _index(fields, media_type)
    if media_type in _MANIFESTS:
        return _manifest(fields, media_type)
    raise InvalidArgument(f"mediaType {media_type!r} is no image manifest or index")


def parse_config(data: bytes, annotations: Mapping[str, str] | None = None) -> ConfigDocument:
    """Read an image configuration (image-spec config.md, and Docker's older form of it).

    Args:
        annotations: the manifest's, kept with the image.

    Raises: InvalidArgument naming the wrong field.
    """
    fields = as_object(_json(data, "image config", MAX_CONFIG_BYTES), "image config")
    rootfs = as_object(fields.get("rootfs"), "rootfs")
    if rootfs.get("type") != "layers":
        raise InvalidArgument(f"rootfs.type is {rootfs.get('type')!r}, not 'layers'")
    diff_ids = as_text_list(rootfs.get("diff_ids"), "rootfs.diff_ids")
    for index, diff_id in enumerate(diff_ids):
        try:
            digests.parse(diff_id)
        except InvalidArgument as error:
            raise InvalidArgument(f"rootfs.diff_ids[{index}]: {error}") from None
    return ConfigDocument(image_config(fields, annotations), diff_ids)


def image_config(fields: Mapping[str, Any], annotations: Mapping[str, str] | None = None) -> ImageConfig:
    """The part of an image configuration that matters to containers.

    Args:
        fields: the whole document.
        annotations: as of `parse_config`.

    Raises: InvalidArgument naming the wrong field.
    """
    run = as_object(fields.get("config") or {}, "config")
    return ImageConfig(
        env=as_text_list(run.get("Env"), "config.Env"),
        entrypoint=_command(run.get("Entrypoint"), "config.Entrypoint"),
        cmd=_command(run.get("Cmd"), "config.Cmd"),
        user=as_text(run.get("User") or "", "config.User"),
        working_dir=as_text(run.get("WorkingDir") or "", "config.WorkingDir"),
        volumes=tuple(
            sorted(
                as_text(path, "a key of config.Volumes")
                for path in as_object(run.get("Volumes") or {}, "config.Volumes")
            )
        ),
        stop_signal=as_text(run.get("StopSignal") or "", "config.StopSignal"),
        labels=as_text_map(run.get("Labels"), "config.Labels"),
        annotations=dict(annotations or {}),
        os=as_text(fields.get("os") or "linux", "os"),
        architecture=as_text(fields.get("architecture") or "", "architecture"),
    )


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """The chain ID of each layer (image-spec config.md, "Layer ChainID")."""
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(digests.of(f"{chain[-1]} {diff_id}".encode()) if chain else diff_id)
    return tuple(chain)


def layer_refs(manifest: Manifest, document: ConfigDocument) -> tuple[LayerRef, ...]:
    """Pair the manifest's layers with the configuration's diff IDs.

    Raises: InvalidArgument when their numbers differ or a layer is no filesystem layer.
    """
    if len(manifest.layers) != len(document.diff_ids):
        raise InvalidArgument(
            f"manifest has {len(manifest.layers)} layers, its config has {len(document.diff_ids)} diff_ids"
        )
    for index, layer in enumerate(manifest.layers):
        if layer.media_type.removesuffix(ENCRYPTED) not in LAYER_MEDIA_TYPES:
            raise InvalidArgument(
                f"layers[{index}].mediaType {layer.media_type!r} is no layer noded can unpack"
            )
    chain = chain_ids(document.diff_ids)
    return tuple(
        LayerRef(
            layer.digest,
            diff_id,
            chain_id,
            layer.size_bytes,
            layer.media_type,
            wrapped_keys=layer.annotations.get(JWE_KEYS, ""),
            cipher_options=layer.annotations.get(PUBLIC_OPTIONS, ""),
        )
        for layer, diff_id, chain_id in zip(manifest.layers, document.diff_ids, chain, strict=True)
    )


def _index(fields: Mapping[str, Any], media_type: str) -> Index:
    entries = as_list(fields.get("manifests"), "manifests")
    if len(entries) > MAX_INDEX_ENTRIES:
        raise InvalidArgument(f"manifests has {len(entries)} entries, more than {MAX_INDEX_ENTRIES}")
    return Index(
        media_type=media_type,
        manifests=tuple(parse_descriptor(item, f"manifests[{n}]") for n, item in enumerate(entries)),
        annotations=as_text_map(fields.get("annotations"), "annotations"),
    )


def _manifest(fields: Mapping[str, Any], media_type: str) -> Manifest:
    layers = as_list(fields.get("layers"), "layers")
    if len(layers) > MAX_LAYERS:
        raise InvalidArgument(f"the image has {len(layers)} layers, a node can mount {MAX_LAYERS}")
    return Manifest(
        media_type=media_type,
        config=parse_descriptor(fields.get("config"), "config"),
        layers=tuple(parse_descriptor(item, f"layers[{n}]") for n, item in enumerate(layers)),
        annotations=as_text_map(fields.get("annotations"), "annotations"),
        artifact_type=as_text(fields.get("artifactType") or "", "artifactType"),
    )


def _is_schema_1(fields: Mapping[str, Any], media_type: str) -> bool:
    return media_type.startswith(_SCHEMA_1) or fields.get("schemaVersion") == 1 or "fsLayers" in fields


def _command(value: Any, where: str) -> tuple[str, ...]:
    # Docker once wrote a command of one word as a plain string.
    return (value,) if isinstance(value, str) else as_text_list(value, where)


def _json(data: bytes, what: str, limit_bytes: int) -> Any:
    if len(data) > limit_bytes:
        raise InvalidArgument(f"{what} has {len(data)} bytes, more than {limit_bytes}")
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{what} is not JSON: {error}") from None
