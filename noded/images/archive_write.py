"""Writing images as OCI layouts (directory or tar) and as docker-archive tars. Blocking.

The same images give the same bytes: times are zero, owners root, the order is fixed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from noded.errors import AlreadyExists, DataLoss, FailedPrecondition, NotFound
from noded.host import files, libc
from noded.images.archive_files import expand, scratch_file
from noded.images.archive_read import CONTAINERD_NAME, REF_NAME
from noded.images.content import ContentStore
from noded.images.interruptible import InterruptibleReader
from noded.model.image import Image, LayerRef
from noded.wire import digest as digests
from noded.wire import manifest as manifests

_CHUNK_BYTES = 1 << 20
_OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Sink(Protocol):
    """Where the files of an archive go. A name that was written already is passed over."""

    def add(self, name: str, source: IO[bytes], size: int) -> None: ...


class TarSink:
    def __init__(self, file: IO[bytes]) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `close`
        self._written: set[str] = set()

    def add(self, name: str, source: IO[bytes], size: int) -> None:
        if name in self._written:
            return
        self._written.add(name)
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._tar.addfile(member, InterruptibleReader(source))

    def close(self) -> None:
        self._tar.close()


class DirectorySink:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add(self, name: str, source: IO[bytes], size: int) -> None:
        path = self._directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), path.open("xb") as target:
            reader = InterruptibleReader(source)
            while chunk := reader.read(_CHUNK_BYTES):
                target.write(chunk)


def write_archive(images: Sequence[Image], path: Path, form: str, content: ContentStore) -> None:
    """Write images to `path`, which appears when it is complete and durable.

    Args:
        form: "oci" or "docker" for a tar, "oci-dir" for a directory that must not exist.

    Raises: FailedPrecondition when a compressed layer is not kept; AlreadyExists; by errno.
    Cancellation: between two pieces; nothing is left then.
    """
    try:
        with _published(path, directory=form == "oci-dir") as partial:
            if form == "oci-dir":
                partial.mkdir()
                _write_oci(DirectorySink(partial), images, content)
                return
            with partial.open("xb") as file:
                sink = TarSink(file)
                (_write_docker if form == "docker" else _write_oci)(sink, images, content)
                sink.close()
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise libc.os_error(error, f"cannot write archive {path}") from None


@contextlib.contextmanager
def _published(path: Path, *, directory: bool) -> Iterator[Path]:
    if directory and path.exists():
        raise AlreadyExists(f"{path} exists: name a directory that does not")
    partial = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
    try:
        yield partial
        partial.rename(path)
        files.sync_directory(path.parent)
    finally:
        files.remove_tree(partial)


def _write_oci(sink: Sink, images: Sequence[Image], content: ContentStore) -> None:
    _add_bytes(sink, "oci-layout", _OCI_LAYOUT)
    entries = []
    for image in images:
        manifest = content.read(image.manifest_digest, manifests.MAX_MANIFEST_BYTES)
        for digest in (
            image.manifest_digest,
            image.config_digest,
            *(layer.blob_digest for layer in image.layers),
        ):
            _add_blob(sink, digest, content)
        for name in image.tags or ("",):
            entry: dict[str, Any] = {
                "mediaType": manifests.parse_manifest(manifest).media_type,
                "digest": image.manifest_digest,
                "size": len(manifest),
            }
            if name:
                entry["annotations"] = {CONTAINERD_NAME: name, REF_NAME: name}
            entries.append(entry)
    index = {"schemaVersion": 2, "mediaType": manifests.OCI_INDEX, "manifests": entries}
    _add_bytes(sink, "index.json", _json(index))


def _write_docker(sink: Sink, images: Sequence[Image], content: ContentStore) -> None:
    entries = []
    for image in images:
        if image.artifact is not None:
            raise FailedPrecondition(
                f"image {image.id} is an artifact, which no docker archive can hold: save it as oci"
            )
        config = f"{digests.encoded(image.id)}.json"
        _add_bytes(sink, config, content.read(image.id, manifests.MAX_CONFIG_BYTES))
        names = []
        for layer in image.layers:
            names.append(f"{digests.encoded(layer.diff_id)}.tar")
            _add_expanded(sink, names[-1], layer, content)
        entries.append({"Config": config, "RepoTags": list(image.tags) or None, "Layers": names})
    _add_bytes(sink, "manifest.json", _json(entries))


def _add_expanded(sink: Sink, name: str, layer: LayerRef, content: ContentStore) -> None:
    """A docker archive has uncompressed layers."""
    with _open(layer.blob_digest, content) as blob:
        if layer.blob_digest == layer.diff_id:
            sink.add(name, blob, layer.size_bytes)
            return
        with scratch_file(content.scratch) as scratch:
            found = expand(blob.fileno(), scratch, f"layer {layer.blob_digest}")
            if found != layer.diff_id:
                raise DataLoss(
                    f"stored layer {layer.blob_digest} is damaged: uncompressed it has digest {found}"
                )
            size = scratch.tell()
            scratch.seek(0)
            sink.add(name, scratch, size)


def _add_blob(sink: Sink, digest: str, content: ContentStore) -> None:
    with _open(digest, content) as blob:
        sink.add(f"blobs/{digests.algorithm(digest)}/{digests.encoded(digest)}", blob, content.size(digest))


def _open(digest: str, content: ContentStore) -> IO[bytes]:
    try:
        return open(content.open(digest), "rb", buffering=0)
    except NotFound:
        raise FailedPrecondition(
            f"blob {digest} is not kept on this node: pull the image again with images.keep_blobs = true"
        ) from None


def _add_bytes(sink: Sink, name: str, data: bytes) -> None:
    sink.add(name, io.BytesIO(data), len(data))


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
