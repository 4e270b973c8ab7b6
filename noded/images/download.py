"""Brings blobs into the content store: each digest once at a time, from the first source that has it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

import trio

from noded.errors import (
    DataLoss,
    FailedPrecondition,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
)
from noded.images.flight import Flights, Ticket, Work
from noded.images.progress import ByteCount, LayerProgress, timed
from noded.images.refusals import Source, most_telling
from noded.images.registry import RegistryClient
from noded.images.tee import Tee
from noded.images.transport import Transport
from noded.wire import digest as digests

# What another source may do better.
SOURCE_ERRORS: Final = (RegistryUnavailable, NotFound, PermissionDenied, DataLoss, FailedPrecondition)


class BlobWriter(Protocol):
    """See `noded.images.content.BlobWriter`."""

    offset: int

    def write(self, chunk: bytes | memoryview) -> None: ...
    def verify(self) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...


class Blobs(Protocol):
    """The part of `noded.images.content.ContentStore` that a pull needs."""

    def has(self, digest: str) -> bool: ...
    def open(self, digest: str) -> int: ...
    def read(self, digest: str, limit_bytes: int) -> bytes: ...
    def begin(self, digest: str, size_bytes: int | None) -> BlobWriter: ...
    def put(self, data: bytes) -> str: ...


class Downloads:
    """Blob flights. They live in the nursery given.

    Args:
        received: counts every byte that comes.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        transport: Transport,
        client: RegistryClient,
        blobs: Blobs,
        received: ByteCount,
    ) -> None:
        self._received = received
        self._transport, self._client, self._blobs = transport, client, blobs
        self._flights: Flights[str, None] = Flights(nursery)

    def running(self, digest: str) -> bool:
        """Whether somebody brings this blob now."""
        return digest in self._flights

    async def bring(
        self, sources: Sequence[Source], progress: LayerProgress, *, replace: bool = False
    ) -> None:
        """Have the blob of `progress` in the store, by whoever gets it first.

        Args:
            replace: download it although it is there, since that one is damaged.

        Raises: the most telling of the sources' errors; ResourceExhausted on a full disk.
        Cancellation: safe; the last one who waits ends the download and removes its bytes.
        """
        if replace or not self._blobs.has(progress.digest):
            await self._flights.join(
                progress.digest, partial(self._begin, sources, progress, None), own_failures_only=True
            )

    async def start(self, sources: Sequence[Source], progress: LayerProgress, tee: Tee) -> Ticket[str, None]:
        """Start the download of a blob that is not `running`, with a copy into `tee`, which it closes."""
        return await self._flights.board(progress.digest, partial(self._begin, sources, progress, tee))

    async def keep(self, data: bytes) -> str:
        """Store a manifest or configuration; returns its digest."""
        digest = digests.of(data)
        if not self._blobs.has(digest):
            await self._flights.join(digest, lambda: partial(self._put, data))
        return digest

    def _begin(self, sources: Sequence[Source], progress: LayerProgress, tee: Tee | None) -> Work[None]:
        return partial(self._download, sources, progress, tee)

    async def _download(self, sources: Sequence[Source], progress: LayerProgress, tee: Tee | None) -> None:
        errors: list[NodedError] = []
        try:
            for source in sources:
                try:
                    with timed(progress, "download"):
                        await self._transport.call(self._copy, source, progress, tee)
                except SOURCE_ERRORS as error:
                    errors.append(error)
                    if tee is not None and isinstance(error, DataLoss):
                        tee.spoiled = True
                else:
                    return
            raise most_telling(errors)
        finally:
            # Not before the last source has failed: its reader goes on with what the next one sends.
            if tee is not None:
                tee.close()

    def _copy(self, source: Source, progress: LayerProgress, tee: Tee | None) -> None:
        digest, size = progress.digest, progress.total_bytes
        writer = self._blobs.begin(digest, size)
        try:
            progress.done_bytes = writer.offset
            if tee is not None:
                tee.seek(writer.offset)

            def sink(chunk: bytes) -> None:
                writer.write(chunk)
                progress.done_bytes += len(chunk)
                self._received.add(len(chunk))
                if tee is not None:
                    tee.write(chunk)

            self._client.download(source, digest, size, sink, writer.offset)
            try:
                writer.verify()
            except DataLoss as error:
                raise DataLoss(f"{source.subject} sent a damaged layer: {error}") from error
            if tee is not None:
                tee.close()  # with the verdict; the reader need not wait for the disk
            writer.commit()
        finally:
            writer.abort()

    async def _put(self, data: bytes) -> None:
        await trio.to_thread.run_sync(self._blobs.put, data)
