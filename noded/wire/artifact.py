"""OCI artifacts: manifests that package files instead of a container image. Pure.

Spec: image-spec manifest.md, "Guidelines for Artifact Usage"; the titles are those that ORAS writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from noded.errors import InvalidArgument
from noded.model.image import Artifact, LayerRef
from noded.wire import digest as digests
from noded.wire.descriptor import Descriptor
from noded.wire.manifest import DOCKER_CONFIG, LAYER_MEDIA_TYPES, OCI_CONFIG, Manifest

EMPTY: Final = "application/vnd.oci.empty.v1+json"  # "nothing here", where a descriptor must be
TITLE: Final = "org.opencontainers.image.title"
_MAX_NAME_BYTES: Final = 255  # NAME_MAX of Linux file systems
_MAX_PATH_BYTES: Final = 2048  # leaves room for the directories above, PATH_MAX is 4096


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact: its path below the artifact's root, and the blob with its content."""

    path: str
    blob_digest: str


def parse_artifact(manifest: Manifest) -> Artifact | None:
    """What artifact the manifest is, None for a container image.

    An artifact has a configuration that is none of an image, or says its type and has a layer that no
    container could be made from. An image with such a layer that does not call itself an artifact is
    left to fail as an image.
    """
    config = manifest.config
    if config.media_type in (OCI_CONFIG, DOCKER_CONFIG) and not (
        manifest.artifact_type and any(layer.media_type not in LAYER_MEDIA_TYPES for layer in manifest.layers)
    ):
        return None
    return Artifact(manifest.artifact_type or config.media_type or "unknown", config.digest)


def artifact_layers(manifest: Manifest, manifest_digest: str) -> tuple[LayerRef, ...]:
    """The blobs of an artifact, all of one tree whose ID no image layer can have."""
    tree = digests.of(f"artifact {manifest_digest}".encode())
    return tuple(
        LayerRef(layer.digest, layer.digest, tree, layer.size_bytes, layer.media_type)
        for layer in manifest.layers
    )


def artifact_files(manifest: Manifest) -> tuple[ArtifactFile, ...]:
    """The files of an artifact by their titles. One without a title is named by its digest.

    Raises: InvalidArgument for a title that is no path below the root, or names two files.
    """
    files: dict[str, str] = {}
    for index, layer in enumerate(manifest.layers):
        if layer.media_type == EMPTY and TITLE not in layer.annotations:
            continue
        path = _path(layer, f"layers[{index}]")
        if files.setdefault(path, layer.digest) != layer.digest:
            raise InvalidArgument(f"layers[{index}]: two files of the artifact have the title {path!r}")
    _check_directories(list(files))
    return tuple(ArtifactFile(path, digest) for path, digest in files.items())


def only_file(manifest: Manifest, name: str, limit_bytes: int) -> Descriptor:
    """The blob of an artifact that has just one file.

    The media type of its configuration says nothing: older tools wrote that of an image.

    Raises: InvalidArgument when it is an image, has another number of files, or one that is too large.
    """
    files = [layer for layer in manifest.layers if layer.media_type != EMPTY]
    if any(layer.media_type in LAYER_MEDIA_TYPES for layer in files):
        raise InvalidArgument(f"{name} is a container image, not an artifact with one file")
    if len(files) != 1:
        raise InvalidArgument(f"{name} is an artifact of {len(files)} files: there must be exactly one")
    if files[0].size_bytes > limit_bytes:
        raise InvalidArgument(f"{name} has {files[0].size_bytes} bytes, more than {limit_bytes}")
    return files[0]


def _path(layer: Descriptor, where: str) -> str:
    title = layer.annotations.get(TITLE, "")
    if not title:
        return layer.digest.replace(":", "-")
    where = f"{where}.annotations: {TITLE} {title!r}"
    parts = title.split("/")
    if "\0" in title or any(part in ("", ".", "..") for part in parts):
        raise InvalidArgument(f"{where} is not a relative path without '.', '..' and empty parts")
    if len(title.encode()) > _MAX_PATH_BYTES or max(len(part.encode()) for part in parts) > _MAX_NAME_BYTES:
        raise InvalidArgument(f"{where} is longer than a file name may be")
    return title


def _check_directories(paths: Sequence[str]) -> None:
    known = set(paths)
    for path in paths:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in known:
                raise InvalidArgument(f"{TITLE} {parent!r} is both a file and a directory of the artifact")
            parent = parent.rpartition("/")[0]
