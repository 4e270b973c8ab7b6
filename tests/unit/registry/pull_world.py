"""A puller with a real content store; layers are only counted, the library is in memory."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from registry_fakes import FakeRegistry

from noded.config import ImagesConfig
from noded.errors import (
    DataLoss,
    NodedError,
)
from noded.images.auth import Credentials
from noded.images.content import ContentStore
from noded.images.exchange import Retry
from noded.images.pull import Puller
from noded.images.registry import RegistryClient
from noded.images.transport import Transport
from noded.model.image import Credential, Image, LayerRef
from noded.wire.artifact import ArtifactFile
from noded.wire.descriptor import Platform
from tests.support import images as build

FAST = Retry(first_wait_seconds=0.01, longest_wait_seconds=0.02)
HOST = Platform("linux", "amd64")


def noise(seed: int, size: int) -> bytes:
    return bytes((seed * 7 + index * index // 3) % 251 for index in range(size))


BIG = build.tar([build.Entry("big", noise(1, 300_000))])
SMALL = build.tar([build.Entry("small", noise(2, 500))])
OTHER = build.tar([build.Entry("other", noise(3, 2000))])


def image(*layers: bytes, arch: str = "amd64", **options: object) -> build.Image:
    return build.build(layers, compression="none", os_and_architecture=("linux", arch), **options)


IMAGE = image(SMALL, BIG)
TWIN = image(SMALL, OTHER, BIG)


class CountedLayers:
    """Takes layers as `LayerStore` does, but only reads and compares them."""

    def __init__(self) -> None:
        self.complete: set[str] = set()
        self.waiting: set[str] = set()
        self.unpacked: list[str] = []
        self.assembled: list[tuple[str, ...]] = []
        self.from_pipe: list[bool] = []
        self.failures: list[NodedError] = []
        self.hold: trio.Event | None = None
        self.active = 0
        self.one_done = trio.Event()

    def has(self, chain_id: str) -> bool:
        return chain_id in self.complete

    def staged(self, chain_id: str) -> bool:
        return chain_id in self.waiting

    async def unpack(self, layer: LayerRef, source_fd: int) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.active += 1
        try:
            if self.hold is not None:
                await self.hold.wait()
            pipe = stat.S_ISFIFO(os.fstat(source_fd).st_mode)
            stream = trio.lowlevel.FdStream(os.dup(source_fd)) if pipe else None
            if stream is None:
                data = os.pread(source_fd, 10 << 20, 0)
            else:
                data = b""
                async with stream:
                    while chunk := await stream.receive_some(65536):
                        data += chunk
        finally:
            self.active -= 1
        if build.sha256(data) != layer.diff_id:
            raise DataLoss(f"layer {layer.diff_id} is damaged")
        self.unpacked.append(layer.chain_id)
        self.from_pipe.append(pipe)
        self.waiting.add(layer.chain_id)
        self.one_done.set()

    async def assemble(
        self, layers: Sequence[LayerRef], wanted: Sequence[ArtifactFile], content: ContentStore
    ) -> None:
        for file in wanted:
            content.verify(file.blob_digest)
        self.assembled.append(tuple(file.path for file in wanted))
        self.waiting.update(layer.chain_id for layer in layers)

    async def publish(self, layers: Sequence[LayerRef]) -> None:
        for layer in layers:
            assert layer.chain_id in self.waiting | self.complete
            self.complete.add(layer.chain_id)


class MemoryLibrary:
    def __init__(self) -> None:
        self.images: dict[str, Image] = {}
        self.leases: dict[str, set[str]] = {}
        self.leased: list[set[str]] = []

    def get(self, reference: str) -> Image | None:
        return self.images.get(reference)

    async def lease(self, digest: Collection[str], owner: str) -> None:
        self.leases.setdefault(owner, set()).update(digest)
        self.leased.append(set(digest))

    async def release(self, owner: str) -> None:
        await trio.lowlevel.checkpoint()
        self.leases.pop(owner, None)

    async def publish(self, image: Image) -> None:
        for name in (image.id, *image.tags, *image.digests):
            self.images[name] = image


class World:
    """A puller with everything around it."""

    def __init__(self, directory: Path, **config: object) -> None:
        self.directory = directory
        self.conf = directory / "registries.conf"
        self.content = ContentStore(directory / "content")
        self.layers = CountedLayers()
        self.library = MemoryLibrary()
        self.auth = directory / "auth.json"
        self.transport = Transport(stall_seconds=float(str(config.pop("stall", 5))), connect_seconds=5)
        settings = ImagesConfig(registries_conf=self.conf, unpack_workers=2, **config)
        self.puller = Puller(
            settings,
            self.content,
            self.layers,
            self.library,
            transport=self.transport,
            client=RegistryClient(self.transport, retry=FAST),
            credentials=Credentials([self.auth]),
            host=HOST,
        )

    def trust(self, *registries: FakeRegistry, extra: str = "") -> None:
        tables = (f'[[registry]]\nlocation = "{one.host}"\ninsecure = true\n' for one in registries)
        self.conf.write_text("".join(tables) + extra)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Puller]:
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await nursery.start(self.puller.run)
                yield self.puller
                nursery.cancel_scope.cancel()

    def pull(self, name: str, credential: Credential | None = None) -> str:
        async def main() -> str:
            async with self.running() as puller:
                return await puller.pull(name, credential)

        try:
            return trio.run(main)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    def fails(self, name: str, credential: Credential | None = None) -> NodedError:
        with pytest.raises(NodedError) as caught:
            self.pull(name, credential)
        self.nothing_left()
        return caught.value

    def nothing_left(self) -> None:
        """No image, no lease, no partial blob, no progress, no open descriptor of a pipe."""
        assert self.library.images == {}
        assert self.library.leases == {}
        assert list(self.content.scratch.iterdir()) == []
        assert self.puller.progress() == ()
        assert pipes() == 0


def pipes() -> int:
    """Open pipes of this process that carry layers: the large ones."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += (
                os.readlink(f"/proc/self/fd/{name}").startswith("pipe:") and _pipe_size(int(name)) >= 1 << 20
            )
        except OSError:
            continue
    return count


def _pipe_size(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)
