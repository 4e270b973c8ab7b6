"""The image side of a daemon in this process, for pulls from real registries."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from noded.config import ImagesConfig
from noded.images.auth import Credentials
from noded.images.content import ContentStore
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.exchange import Retry
from noded.images.layers import LayerStore
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.registry import RegistryClient
from noded.images.transport import Transport
from noded.images.unpack.client import Unpacker
from noded.model.paths import Layout
from noded.store.database import Database
from noded.store.images import ImageRows
from noded.store.schema import MIGRATIONS
from tests.support.images import Entry, Image, build, tar
from tests.support.registry import Registry

BASE = tar([Entry("etc/", mode=0o755), Entry("etc/name", b"base"), Entry("etc/old", b"gone")])
TOP = tar([Entry("etc/.wh.old"), Entry("bin/", mode=0o755), Entry("bin/tool", os.urandom(700_000), 0o4755)])
IMAGE = build([BASE, TOP])


class Node:
    """The image side of a daemon, from registries.conf to the database."""

    def __init__(
        self,
        directory: Path,
        *,
        keep_blobs: bool = True,
        retry: Retry | None = None,
        stall_seconds: float = 5,
        connect_seconds: float = 15,
        keys: Path | None = None,
        policy: Path | None = None,
        registries_d: Path | None = None,
    ) -> None:
        self._policy, self._registries_d = policy, registries_d
        self._keys = DecryptionKeys(keys)
        self.keep_blobs = keep_blobs
        self._retry = retry
        self._seconds = stall_seconds, connect_seconds
        self.layout = Layout(directory / "root", directory / "state")
        self.layout.root.mkdir(parents=True)
        self.conf = directory / "registries.conf"
        self.auth = directory / "auth.json"
        self.auth_dir = directory / "auth"

    def trust(self, *hosts: Registry | str) -> None:
        names = (host if isinstance(host, str) else host.host for host in hosts)
        self.conf.write_text(
            "".join(f'[[registry]]\nlocation = "{name}"\ninsecure = true\n' for name in names)
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[tuple[Puller, Library]]:
        database = await Database.open(self.layout.database, MIGRATIONS)
        stall, connect = self._seconds
        transport = Transport(stall_seconds=stall, connect_seconds=connect)
        try:
            async with Unpacker() as unpacker, trio.open_nursery() as nursery:
                content = ContentStore(self.layout.content)
                layers = LayerStore(self.layout.layers, unpacker, keys=self._keys)
                library = Library(
                    content=content,
                    layers=layers,
                    rows=ImageRows(database),
                    layout=self.layout,
                    keep_blobs=self.keep_blobs,
                )
                library.set_in_use(tuple)
                await library.load()
                await library.collect()
                config = ImagesConfig(
                    registries_conf=self.conf,
                    keep_blobs=self.keep_blobs,
                    auth_dir=self.auth_dir,
                    signature_policy=self._policy,
                    signature_registries_dir=self._registries_d or self.layout.root / "registries.d",
                )
                puller = Puller(
                    config,
                    content,
                    layers,
                    library,
                    transport=transport,
                    client=RegistryClient(transport, retry=self._retry),
                    credentials=Credentials([self.auth]),
                    keys=self._keys,
                )
                await nursery.start(puller.run)
                yield puller, library
                nursery.cancel_scope.cancel()
        finally:
            await database.close()

    def run(self, work: Callable[[Puller, Library], Awaitable[None]]) -> None:
        async def main() -> None:
            with trio.fail_after(120):
                async with self.running() as (puller, library):
                    await work(puller, library)

        trio.run(main)

    def is_empty(self) -> bool:
        files = [path for path in self.layout.content.rglob("*") if path.is_file()]
        layers = [path for path in self.layout.layers.iterdir() if path.name != ".staging"]
        return not files and not layers and not list((self.layout.layers / ".staging").iterdir())


def tree(library: Library, image_id: str, layer: int) -> Path:
    image = library.get(image_id)
    assert image is not None
    return library.layers.tree(image.layers[layer].chain_id)


def check(library: Library, name: str, image: Image = IMAGE) -> None:
    check_tree(library, name, image)
    for digest in image.blobs:
        library.content.verify(digest)


def check_tree(library: Library, name: str, image: Image = IMAGE) -> None:
    kept = library.get(name)
    assert kept is not None
    assert kept.id == image.id
    assert (tree(library, name, 0) / "etc/name").read_bytes() == b"base"
    tool = tree(library, name, 1) / "bin/tool"
    assert tool.stat().st_mode & 0o7777 == 0o4755
