"""Which images an archive holds: OCI layouts, and what `docker save` writes. Blocking.

Spec: image-spec image-layout.md. The docker-archive form is described by Docker's "image spec v1.2",
combined image JSON + filesystem changeset format. Newer `docker save` writes both forms into one tar;
then the OCI one counts, since it has the real manifests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import trio

from noded.errors import InvalidArgument, NotFound
from noded.images.archive_files import COMPRESSED, ArchiveFiles
from noded.images.content import ContentStore
from noded.images.platform import choose, host_platform
from noded.model.image import Artifact, ImageConfig, LayerRef
from noded.wire import digest as digests
from noded.wire import manifest as manifests
from noded.wire import reference as references
from noded.wire.artifact import ArtifactFile, artifact_files, artifact_layers, parse_artifact
from noded.wire.descriptor import Descriptor, as_list, as_object, as_text, as_text_list

REF_NAME = "org.opencontainers.image.ref.name"
CONTAINERD_NAME = "io.containerd.image.name"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_GZIP, _ZSTD = COMPRESSED
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """One image of an archive.

    Args:
        files: name in the archive by blob digest, for the layers.
        genuine: the manifest is one that a registry could have; else it was made up here.
    """

    manifest_data: bytes
    config_data: bytes
    config: ImageConfig
    layers: tuple[LayerRef, ...]
    files: Mapping[str, str]
    names: tuple[str, ...]
    genuine: bool
    artifact: Artifact | None = None
    artifact_files: tuple[ArtifactFile, ...] = ()


def find_images(archive: ArchiveFiles, path: Path) -> list[Found]:
    """All images for this node's platform.

    Raises: InvalidArgument when it is no image archive, or names what is wrong in it; NotFound for a
        missing file, or when all images are for other platforms; DataLoss.
    """
    if archive.has("index.json"):
        return _find_oci(archive, path)
    if archive.has("manifest.json"):
        return [_docker_image(archive, entry, path) for entry in _docker_entries(archive)]
    raise InvalidArgument(f"{path} is no image archive: it has neither index.json nor manifest.json")


def copy_layers(archive: ArchiveFiles, found: Found, content: ContentStore) -> None:
    """Bring the compressed layers into the content store, those that are not there.

    Raises: NotFound, DataLoss, ResourceExhausted.
    Cancellation: between two pieces; nothing is left then.
    """
    for layer in found.layers:
        if content.has(layer.blob_digest):
            continue
        writer = content.begin(layer.blob_digest, layer.size_bytes)
        try:
            writer.restart()
            with archive.open(found.files[layer.blob_digest]) as file:
                while chunk := file.read(_CHUNK_BYTES):
                    trio.from_thread.check_cancelled()
                    writer.write(chunk)
            writer.commit()
        finally:
            writer.abort()


def _find_oci(archive: ArchiveFiles, path: Path) -> list[Found]:
    index = manifests.parse_manifest(
        archive.read("index.json", manifests.MAX_MANIFEST_BYTES), manifests.OCI_INDEX
    )
    if not isinstance(index, manifests.Index):
        raise InvalidArgument(f"{path}: index.json is not an image index")
    found: dict[str, Found] = {}
    problem: NotFound | None = None
    for entry in index.manifests:
        try:
            one = _oci_image(archive, _for_this_node([entry], path), path)
        except _OtherPlatform as error:
            problem = problem or error
            continue
        names = found[entry.digest].names if entry.digest in found else ()
        found[entry.digest] = replace(one, names=(*names, *one.names))
    if not found:
        raise problem or InvalidArgument(f"{path}: index.json names no image")
    return list(found.values())


class _OtherPlatform(NotFound):
    """Not an error beside an image that does suit this node."""


def _for_this_node(entries: Sequence[Descriptor], path: Path) -> Descriptor:
    try:
        return choose(entries, host_platform(), f"archive {path}")
    except NotFound as error:
        raise _OtherPlatform(str(error)) from None


def _oci_image(archive: ArchiveFiles, entry: Descriptor, path: Path) -> Found:
    names = _oci_names(entry)
    data = _read_blob(archive, entry, manifests.MAX_MANIFEST_BYTES)
    document = manifests.parse_manifest(data, entry.media_type)
    if isinstance(document, manifests.Index):
        entry = _for_this_node(document.manifests, path)
        data = _read_blob(archive, entry, manifests.MAX_MANIFEST_BYTES)
        document = manifests.parse_manifest(data, entry.media_type)
        if isinstance(document, manifests.Index):
            raise InvalidArgument(f"{path}: image index {entry.digest} is nested too deep")
    config_data = _read_blob(archive, document.config, manifests.MAX_CONFIG_BYTES)
    artifact = parse_artifact(document)
    if artifact is not None:
        layers = artifact_layers(document, entry.digest)
        config = ImageConfig(annotations=document.annotations, os="")
    else:
        parsed = manifests.parse_config(config_data, document.annotations)
        layers, config = manifests.layer_refs(document, parsed), parsed.config
    files = {layer.blob_digest: _blob(layer.blob_digest) for layer in layers}
    return Found(
        data,
        config_data,
        config,
        layers,
        files,
        names,
        genuine=True,
        artifact=artifact,
        artifact_files=artifact_files(document) if artifact else (),
    )


def _oci_names(entry: Descriptor) -> tuple[str, ...]:
    """Full names only: a bare tag, as skopeo and docker write it, names no repository."""
    for key in (CONTAINERD_NAME, REF_NAME):
        text = entry.annotations.get(key, "")
        if "/" in text or ":" in text:
            try:
                return (references.parse(text).canonical,)
            except InvalidArgument:
                continue
    return ()


def _docker_entries(archive: ArchiveFiles) -> Iterator[Mapping[str, Any]]:
    try:
        entries = as_list(
            json.loads(archive.read("manifest.json", manifests.MAX_MANIFEST_BYTES)), "manifest.json"
        )
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"manifest.json is not JSON: {error}") from None
    for number, entry in enumerate(entries):
        yield as_object(entry, f"manifest.json[{number}]")


def _docker_image(archive: ArchiveFiles, entry: Mapping[str, Any], path: Path) -> Found:
    config_data = archive.read(as_text(entry.get("Config"), "Config"), manifests.MAX_CONFIG_BYTES)
    config = manifests.parse_config(config_data)
    names = as_text_list(entry.get("Layers"), "Layers")
    if len(names) != len(config.diff_ids):
        raise InvalidArgument(
            f"{path}: manifest.json has {len(names)} layers, the config has {len(config.diff_ids)} diff_ids"
        )
    layers = []
    files = {}
    for name, diff_id, chain_id in zip(
        names, config.diff_ids, manifests.chain_ids(config.diff_ids), strict=True
    ):
        digest, size, suffix = _hash(archive, name)
        layers.append(LayerRef(digest, diff_id, chain_id, size, _LAYER + suffix))
        files[digest] = name
    tags = tuple(
        references.parse(tag).canonical
        for tag in as_text_list(entry.get("RepoTags"), "RepoTags")
        if tag != "<none>:<none>"
    )
    manifest = _made_up_manifest(config_data, layers)
    return Found(manifest, config_data, config.config, tuple(layers), files, tags, genuine=False)


def _made_up_manifest(config_data: bytes, layers: list[LayerRef]) -> bytes:
    """A manifest for an image that came without one; the same image always gets the same."""
    document = {
        "schemaVersion": 2,
        "mediaType": manifests.OCI_MANIFEST,
        "config": {
            "mediaType": manifests.OCI_CONFIG,
            "digest": digests.of(config_data),
            "size": len(config_data),
        },
        "layers": [
            {"mediaType": layer.media_type, "digest": layer.blob_digest, "size": layer.size_bytes}
            for layer in layers
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _hash(archive: ArchiveFiles, name: str) -> tuple[str, int, str]:
    """(digest, size, suffix of the media type) of a layer file."""
    sha256, size, suffix = hashlib.sha256(usedforsecurity=False), 0, ""
    with archive.open(name) as file:
        while chunk := file.read(_CHUNK_BYTES):
            trio.from_thread.check_cancelled()
            if not size:
                suffix = "+gzip" if chunk.startswith(_GZIP) else "+zstd" if chunk.startswith(_ZSTD) else ""
            sha256.update(chunk)
            size += len(chunk)
    return f"sha256:{sha256.hexdigest()}", size, suffix


def _read_blob(archive: ArchiveFiles, entry: Descriptor, limit_bytes: int) -> bytes:
    data = archive.read(_blob(entry.digest), limit_bytes)
    digests.verify(data, entry.digest, f"blob {entry.digest} of the archive")
    return data


def _blob(digest: str) -> str:
    return f"blobs/{digests.algorithm(digest)}/{digests.encoded(digest)}"
