"""Layers and images for the tests of the local store, made on the spot."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from noded.images.content import ContentStore
from noded.images.layers import LayerStore
from noded.images.library import Library
from noded.images.snapshots import Snapshots
from noded.images.unpack.client import Unpacker
from noded.model.image import Image, ImageConfig, LayerRef
from noded.model.paths import Layout
from noded.store.database import Database
from noded.store.images import ImageRows
from noded.store.schema import MIGRATIONS
from noded.wire.manifest import OCI_CONFIG, OCI_MANIFEST, chain_ids

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = TAR + "+gzip"


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def directory(name: str, **fields: object) -> Member:
    return member(name, tarfile.DIRTYPE, **fields)


def file(name: str, data: bytes = b"", **fields: object) -> Member:
    return member(name, tarfile.REGTYPE, data, **fields)


def symlink(name: str, target: str, **fields: object) -> Member:
    return member(name, tarfile.SYMTYPE, linkname=target, **fields)


def hardlink(name: str, target: str, **fields: object) -> Member:
    return member(name, tarfile.LNKTYPE, linkname=target, **fields)


def tar(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=form, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Store:
    """A complete store below one directory."""

    def __init__(self, layout: Layout, library: Library, snapshots: Snapshots, unpacker: Unpacker) -> None:
        self.layout = layout
        self.library = library
        self.content = library.content
        self.layers = library.layers
        self.snapshots = snapshots
        self.unpacker = unpacker

    async def add(
        self,
        tars: Sequence[bytes],
        *tags: str,
        config: dict[str, object] | None = None,
        compressed: bool = True,
    ) -> Image:
        """Put an image of these layers into the store, as a pull would."""
        image, blobs = make_image(tars, *tags, config=config, compressed=compressed)
        owner = f"test-{image.id}"
        await self.library.lease([*blobs, *(layer.chain_id for layer in image.layers)], owner)
        for data in blobs.values():
            await trio.to_thread.run_sync(self.content.put, data)
        for layer in image.layers:
            await self.unpack(layer)
        await self.layers.publish(image.layers)
        image = await self.library.publish(image)
        await self.library.release(owner)
        return image

    async def unpack(self, layer: LayerRef) -> None:
        fd = self.content.open(layer.blob_digest)
        try:
            await self.layers.unpack(layer, fd)
        finally:
            os.close(fd)


def make_image(
    tars: Sequence[bytes],
    *tags: str,
    config: dict[str, object] | None = None,
    compressed: bool = True,
) -> tuple[Image, dict[str, bytes]]:
    """An image and its blobs by digest."""
    diff_ids = [sha256(data) for data in tars]
    packed = [gzip.compress(data, 1, mtime=0) if compressed else data for data in tars]
    kind = GZIP if compressed else TAR
    document = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "config": config or {},
    }
    config_data = json.dumps(document).encode()
    layers = tuple(
        LayerRef(sha256(blob), diff_id, chain_id, len(blob), kind)
        for blob, diff_id, chain_id in zip(packed, diff_ids, chain_ids(diff_ids), strict=True)
    )
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256(config_data), "size": len(config_data)},
        "layers": [
            {"mediaType": kind, "digest": layer.blob_digest, "size": layer.size_bytes} for layer in layers
        ],
    }
    manifest_data = json.dumps(manifest).encode()
    blobs = {sha256(data): data for data in (config_data, manifest_data, *packed)}
    image = Image(
        id=sha256(config_data),
        manifest_digest=sha256(manifest_data),
        tags=tags,
        digests=(f"localhost/test@{sha256(manifest_data)}",),
        size_bytes=sum(map(len, blobs.values())),
        layers=layers,
        config=ImageConfig(),
    )
    return image, blobs


@asynccontextmanager
async def open_store(directory: Path, **options: object) -> AsyncIterator[Store]:
    layout = Layout(directory / "root", directory / "state", directory / "netns")
    for path in (layout.root, layout.root / "containers", layout.layers, layout.state / "containers"):
        path.mkdir(parents=True, exist_ok=True)
    database = await Database.open(layout.database, MIGRATIONS)
    try:
        async with Unpacker(2) as unpacker:
            library = Library(
                content=ContentStore(layout.content),
                layers=LayerStore(layout.layers, unpacker),
                rows=ImageRows(database),
                layout=layout,
                **options,
            )
            library.set_in_use(frozenset)
            await library.load()
            yield Store(layout, library, Snapshots(layout, library.layers), unpacker)
    finally:
        await database.close()


def with_store(directory: Path, test: Callable[[Store], object], **options: object) -> None:
    """Run an async test function over a fresh or existing store."""

    async def main() -> None:
        with trio.fail_after(120):
            async with open_store(directory, **options) as store:
                await test(store)

    trio.run(main)


def scan(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything that can be seen of a tree, by path: what two equal trees agree in."""
    inodes: dict[int, bytes] = {}
    found: dict[bytes, tuple[object, ...]] = {}
    base = os.fsencode(root)
    paths = [base]
    for top, directories, files in os.walk(base):
        paths += [os.path.join(top, name) for name in (*directories, *files)]
    for path in sorted(paths):
        info = os.lstat(path)
        name = os.path.relpath(path, base)
        detail: object = None
        if stat.S_ISREG(info.st_mode):
            with open(path, "rb") as opened:
                detail = hashlib.file_digest(opened, "sha256").hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            detail = os.readlink(path)
        elif stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
            detail = info.st_rdev
        xattrs = tuple(
            (key, os.getxattr(path, key, follow_symlinks=False))
            for key in sorted(os.listxattr(path, follow_symlinks=False))
        )
        first = inodes.setdefault(info.st_ino, name)
        length = info.st_size if stat.S_ISREG(info.st_mode) else 0
        found[name] = (
            oct(info.st_mode), info.st_uid, info.st_gid, length, info.st_mtime_ns, detail, xattrs, first,
        )  # fmt: skip
    return found


def disk_use(*paths: Path) -> int:
    """Bytes that trees take on disk, by du(1)."""
    os.sync()
    lines = subprocess.run(["du", "-s", "-B1", *paths], capture_output=True, check=True).stdout.splitlines()
    return sum(int(line.split()[0]) for line in lines)
