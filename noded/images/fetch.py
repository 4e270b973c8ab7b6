"""Unpacks the layers of images, each once at a time, if possible while they arrive.

Theory of operation. A *layer flight* (by chain ID and blob) makes an unpacked tree; pulls of any image
share it. When an unpack worker is free as a layer begins, its blob goes into its file and through a pipe
into the unpacker at once; else the finished file is unpacked later. Streaming is only a matter of
speed: whatever goes wrong with the copy in the pipe, the file decides. The pipe ends only after the
blob is verified, so an unpack from it never succeeds on a damaged blob.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import structlog
import trio

from noded.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable
from noded.images.download import Blobs, Downloads
from noded.images.flight import Flights, Ticket, Work
from noded.images.progress import LayerProgress, Phase, Step, note_layer, timed
from noded.images.refusals import Source
from noded.images.tee import Tee
from noded.images.workers import Workers
from noded.model.image import LayerRef
from noded.wire.artifact import ArtifactFile
from noded.wire.ocicrypt import is_encrypted

log = structlog.get_logger(__name__)

_UNPACK = "inflate and extract"  # one child does both at once
_Key = tuple[str, str]


class Layers(Protocol):
    """The part of `noded.images.layers.LayerStore` that a pull needs."""

    def has(self, chain_id: str) -> bool: ...
    def staged(self, chain_id: str) -> bool: ...
    async def unpack(self, layer: LayerRef, source_fd: int) -> object: ...
    async def assemble(
        self, layers: Sequence[LayerRef], wanted: Sequence[ArtifactFile], content: Any
    ) -> object: ...
    async def publish(self, layers: Sequence[LayerRef]) -> object: ...


@dataclass(slots=True)
class Job:
    """What one pull wants.

    Args:
        image: names it in messages.
        sources: where blobs may be, best first.
        parallel: layers in progress at once.
        progress: filled by the fetcher, one per layer, bottom first.
    """

    image: str
    sources: tuple[Source, ...]
    layers: tuple[LayerRef, ...]
    parallel: int
    progress: list[LayerProgress] = field(default_factory=list)


class Fetcher:
    """Layer flights. They live in the nursery given.

    Args:
        unpack_workers: layers unpacked at once; see `Workers`.
        keep_blobs: bring the blob of a layer, too, whose tree is here from a blob that was another one
            (compressed otherwise, or not kept): whoever saves the image needs it.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        downloads: Downloads,
        blobs: Blobs,
        layers: Layers,
        unpack_workers: int = 0,
        keep_blobs: bool = True,
    ) -> None:
        self._downloads, self._blobs, self._layers = downloads, blobs, layers
        self._keep_blobs = keep_blobs
        self._flights: Flights[_Key, None] = Flights(nursery)
        self._workers = Workers(unpack_workers)
        self._live: dict[_Key, LayerProgress] = {}

    async def fetch(self, job: Job) -> None:
        """Bring and unpack every layer of the job that is not present, the largest first.

        Raises: the first failure; the other layers are then given up.
        Cancellation: safe. Layers that no other pull waits for are given up and their bytes removed.
        """
        errors: list[Exception] = []
        slots = trio.Semaphore(job.parallel)
        asked_ns = time.monotonic_ns()
        job.progress[:] = [LayerProgress(layer.blob_digest, layer.size_bytes) for layer in job.layers]
        missing: list[tuple[LayerRef, LayerProgress]] = []
        for index, layer in enumerate(job.layers):
            if self._unpacked(layer) and (not self._keep_blobs or self._blobs.has(layer.blob_digest)):
                job.progress[index].phase = Phase.PRESENT
            else:
                progress = self._live.get(_key(layer), job.progress[index])
                job.progress[index] = progress
                missing.append((layer, progress))
        missing.sort(key=lambda pair: -pair[0].size_bytes)
        async with trio.open_nursery() as nursery:
            for layer, progress in missing:
                await slots.acquire()
                ticket = await self._flights.board(_key(layer), partial(self._begin, layer, progress, job))
                nursery.start_soon(_wait, ticket, slots, errors, nursery.cancel_scope, progress, asked_ns)
        if errors:
            raise errors[0]

    async def fetch_files(self, job: Job, files: Sequence[ArtifactFile]) -> None:
        """Bring the blobs of an artifact, and put its tree together.

        Raises: the first failure; the other blobs are then given up.
        Cancellation: safe, as `fetch`.
        """
        errors: list[Exception] = []
        slots = trio.CapacityLimiter(job.parallel)
        job.progress[:] = [LayerProgress(layer.blob_digest, layer.size_bytes) for layer in job.layers]

        async def bring(progress: LayerProgress, scope: trio.CancelScope) -> None:
            try:
                async with slots:
                    if self._blobs.has(progress.digest):
                        progress.phase = Phase.PRESENT
                        return
                    progress.phase = Phase.DOWNLOADING
                    await self._downloads.bring(job.sources, progress)
                    progress.phase = Phase.DONE
            except Exception as error:
                errors.append(error)
                scope.cancel()

        async with trio.open_nursery() as nursery:
            for progress in sorted(job.progress, key=lambda one: -one.total_bytes):
                nursery.start_soon(bring, progress, nursery.cancel_scope)
        if errors:
            raise errors[0]
        await self._layers.assemble(job.layers, files, self._blobs)

    def _unpacked(self, layer: LayerRef) -> bool:
        return self._layers.has(layer.chain_id) or self._layers.staged(layer.chain_id)

    def _begin(self, layer: LayerRef, progress: LayerProgress, job: Job) -> Work[None]:
        # Taken here, in the order of the job, so that it is the largest layers that stream.
        streams = False
        here = self._blobs.has(layer.blob_digest) or self._downloads.running(layer.blob_digest)
        here = here or self._unpacked(layer)
        # The authentication code of an encrypted layer is verified before anything is decrypted.
        if not here and not is_encrypted(layer.media_type):
            streams = self._workers.take_now(layer)
        self._live[_key(layer)] = progress
        return partial(self._bring, layer, progress, job, streams)

    async def _bring(self, layer: LayerRef, progress: LayerProgress, job: Job, streams: bool) -> None:
        try:
            if streams:
                with ExitStack() as unpacker:
                    unpacker.callback(self._workers.give_back, layer)
                    # Another layer of the same blob may have begun since the worker was taken.
                    done = not self._downloads.running(layer.blob_digest) and await self._stream(
                        layer, progress, job, unpacker
                    )
                if done:
                    progress.phase = Phase.DONE
                    return
            kept = self._blobs.has(layer.blob_digest)
            progress.phase = Phase.DOWNLOADING
            await self._downloads.bring(job.sources, progress)
            try:
                await self._unpack_file(layer, progress, job)
            except DataLoss:
                if not kept:
                    raise
                # Verified when it came, damaged on disk since: only the registry can help.
                log.warning("stored blob is damaged, downloading it again", digest=layer.blob_digest)
                progress.phase = Phase.DOWNLOADING
                await self._downloads.bring(job.sources, progress, replace=True)
                await self._unpack_file(layer, progress, job)
            progress.done_bytes = progress.total_bytes
            progress.phase = Phase.DONE
        finally:
            del self._live[_key(layer)]

    async def _unpack_file(self, layer: LayerRef, progress: LayerProgress, job: Job) -> None:
        waited_ns = time.monotonic_ns()
        async with self._workers.place(layer):
            progress.steps.append(Step("wait for an unpacker", waited_ns, time.monotonic_ns()))
            progress.phase = Phase.UNPACKING
            source = self._blobs.open(layer.blob_digest)
            try:
                with timed(progress, _UNPACK):
                    await self._layers.unpack(layer, source)
            except Exception as error:
                raise _named(error, job) from error
            finally:
                os.close(source)

    async def _stream(self, layer: LayerRef, progress: LayerProgress, job: Job, unpacker: ExitStack) -> bool:
        """Download and unpack at once.

        Args:
            unpacker: gives the unpacker back, which need not wait until the blob is on disk.

        Returns: False when the blob is here but must be unpacked from its file.
        """
        progress.phase = Phase.STREAMING
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        tee = Tee(write_end)
        unpack_error: Exception | None = None
        failure: Exception | None = None

        async def unpack(scope: trio.CancelScope) -> None:
            nonlocal unpack_error
            try:
                with timed(progress, _UNPACK):
                    await self._layers.unpack(layer, read_end)
            except Exception as error:
                unpack_error = error
                if not isinstance(error, DataLoss | Unavailable):
                    scope.cancel()  # the rest of the blob would change nothing
            finally:
                os.close(read_end)  # a writer blocked on the full pipe wakes
                unpacker.close()

        async with trio.open_nursery() as nursery:
            ticket = await self._downloads.start(job.sources, progress, tee)
            nursery.start_soon(unpack, nursery.cancel_scope)
            try:
                await ticket.wait()
            except Exception as error:
                failure = error
                nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if unpack_error is None and not tee.spoiled:
            return True
        if tee.spoiled or unpack_error is None or isinstance(unpack_error, Unavailable):
            return False
        raise _named(unpack_error, job) from unpack_error


def _key(layer: LayerRef) -> _Key:
    return layer.chain_id, layer.blob_digest


async def _wait(
    ticket: Ticket[_Key, None],
    slots: trio.Semaphore,
    errors: list[Exception],
    scope: trio.CancelScope,
    progress: LayerProgress,
    asked_ns: int,
) -> None:
    try:
        await ticket.wait(own_failures_only=True)
    except Exception as error:
        errors.append(error)
        scope.cancel()
    finally:
        note_layer(progress, asked_ns)
        slots.release()


def _named(error: Exception, job: Job) -> Exception:
    """The unpacker's error with the image's name in front."""
    kinds = (DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable)
    kind = next((kind for kind in kinds if isinstance(error, kind)), None)
    return kind(f"cannot pull {job.image}: {error}") if kind else error
