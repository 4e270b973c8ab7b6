"""Layer trees by chain ID.

    layers/
      CHAIN_HEX/fs/            the tree, in the form of an overlay lower directory
      CHAIN_HEX/record.json    the commit record: without it the layer does not exist
      .staging/CHAIN_HEX/      being extracted, or extracted and not yet published
      .staging/removed-*       being deleted

A tree is named by the chain ID and not by the diff ID, because directories that a layer only implies
take their metadata from the layers below (`inherit.py`). Publishing an image costs one syncfs: the
trees and records of all its new layers are written first, made durable together, and then renamed
into place, so that a name in layers/ is a promise that survives a power loss.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.errors import FailedPrecondition, NotFound
from noded.host import files
from noded.images.compare import first_difference
from noded.images.content import ContentStore
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.extraction import Extraction
from noded.images.filesystem import sync_filesystem
from noded.images.layer_record import (
    RECORD,
    TREE,
    LayerRecord,
    home_name,
    read_records,
)
from noded.images.staged_layer import StagedLayer, assembled, extracted, settle
from noded.images.unpack.client import Unpacker
from noded.images.unpack.limits import UnpackLimits
from noded.model.image import LayerRef
from noded.wire.artifact import ArtifactFile

log = structlog.get_logger(__name__)

MERGED = "merged"  # what a storage driver made of this layer and those below; goes with the layer
_NAME = re.compile(r"(?P<removed>removed-)?(?P<hex>[0-9a-f]{64})(?(removed)-[0-9a-f]+)\Z")


@dataclass(frozen=True, slots=True)
class Detached:
    """A tree without a name, and what its deletion frees."""

    path: Path
    used_bytes: int


class LayerStore:
    """The layers directory of one noded instance. Reads all commit records when it is made."""

    def __init__(
        self,
        directory: Path,
        unpacker: Unpacker,
        limits: UnpackLimits | None = None,
        keys: DecryptionKeys | None = None,
    ) -> None:
        self.directory = directory
        self._staging = directory / ".staging"
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._extraction = Extraction(unpacker, limits or UnpackLimits(), keys or DecryptionKeys(None))
        self._records = {record.chain_id: record for record in read_records(directory)}
        self._staged: dict[str, StagedLayer] = {}
        self._locks: dict[str, trio.Lock] = {}
        self._publishing = trio.Lock()

    def has(self, chain_id: str) -> bool:
        """Whether the layer is complete and durable."""
        return chain_id in self._records

    def staged(self, chain_id: str) -> bool:
        """Whether the layer is extracted and waits for `publish`."""
        return chain_id in self._staged

    def tree(self, chain_id: str) -> Path:
        """The directory to mount, whether or not it exists."""
        return self.directory / home_name(chain_id) / TREE

    def record(self, chain_id: str) -> LayerRecord:
        """Raises: NotFound."""
        try:
            return self._records[chain_id]
        except KeyError:
            raise NotFound(f"layer {chain_id} is not in the local store") from None

    def records(self) -> Collection[LayerRecord]:
        """All complete layers."""
        return tuple(self._records.values())

    def known(self) -> frozenset[str]:
        """Chain IDs of all layers that are complete or wait for `publish`."""
        return frozenset((*self._records, *self._staged))

    def usage(self) -> tuple[int, int]:
        """(bytes, inodes) on disk of all layers that are complete or wait for `publish`."""
        records = (*self._records.values(), *(staged.record for staged in self._staged.values()))
        return sum(record.used_bytes for record in records), sum(record.used_inodes for record in records)

    async def unpack(self, layer: LayerRef, source_fd: int) -> None:
        """Extract a layer into staging, unless it is there already.

        Concurrent calls for one layer share the work: the first extracts, the others return when it is
        done, *without reading their source*. Whoever feeds a pipe must expect that its reader closes.

        Args:
            source_fd: the compressed blob, a file at its start or a pipe (an encrypted one: a file). Stays
                the caller's.

        Raises: as `Unpacker.unpack` and `DecryptionKeys.unlock`; what was extracted is then deleted.
        Cancellation: safe, ends the extraction and deletes its work.
        Locks: this layer.
        """
        async with self._hold(layer.chain_id):
            if self.has(layer.chain_id) or self.staged(layer.chain_id):
                return
            staging = self._staging / home_name(layer.chain_id)
            try:
                report = await self._extraction.run(layer, source_fd, staging / TREE)
                self._staged[layer.chain_id] = await trio.to_thread.run_sync(
                    extracted, layer, staging / TREE, report
                )
            finally:
                if layer.chain_id not in self._staged:
                    with trio.CancelScope(shield=True):  # local work of bounded size
                        await trio.to_thread.run_sync(files.remove_tree, staging)
            log.debug(
                "layer unpacked", chain_id=layer.chain_id, entries=report.entries, bytes=report.stream_bytes
            )
            if report.skipped_devices or report.dropped_xattrs:
                log.info(
                    "layer unpacked in part",
                    chain_id=layer.chain_id,
                    skipped_devices=report.skipped_devices,
                    dropped_xattrs=report.dropped_xattrs,
                )

    async def assemble(
        self, layers: Sequence[LayerRef], wanted: Sequence[ArtifactFile], content: ContentStore
    ) -> None:
        """Make the tree of an artifact in staging, unless it is there already. Its blobs must be stored.

        Args:
            layers: the artifact's; all have the chain ID of the tree.

        Raises: NotFound naming a missing blob; by errno.
        Cancellation: waits for the work in progress.
        Locks: this tree.
        """
        for chain_id in {layer.chain_id for layer in layers}:
            async with self._hold(chain_id):
                if self.has(chain_id) or self.staged(chain_id):
                    return
                staging = self._staging / home_name(chain_id)
                try:
                    self._staged[chain_id] = await trio.to_thread.run_sync(
                        assembled, chain_id, staging / TREE, wanted, content
                    )
                finally:
                    if chain_id not in self._staged:
                        with trio.CancelScope(shield=True):
                            await trio.to_thread.run_sync(files.remove_tree, staging)

    async def compare(self, layer: LayerRef, below: Sequence[str], source_fd: int) -> str:
        """Extract a complete layer again, beside it, and tell the first path that differs, "" for none.

        Args:
            below: chain IDs of the layers below, bottom to top; they must be good.
            source_fd: the compressed blob, a file at its start. Stays the caller's.

        Raises: as `Unpacker.unpack`.
        Cancellation: safe, what was extracted is deleted.
        Locks: this layer.
        """
        async with self._hold(layer.chain_id):
            copy = self._staging / f"removed-{home_name(layer.chain_id)}-{os.urandom(8).hex()}"
            try:
                report = await self._extraction.run(layer, source_fd, copy / TREE)
                again = await trio.to_thread.run_sync(extracted, layer, copy / TREE, report)
                lowers = [self.tree(lower) for lower in reversed(below)]
                await trio.to_thread.run_sync(settle, copy / TREE, again.shape, lowers)
                return await trio.to_thread.run_sync(first_difference, self.tree(layer.chain_id), copy / TREE)
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(files.remove_tree, copy)

    async def publish(self, layers: Sequence[LayerRef]) -> None:
        """Make the layers of an image complete and durable: one syncfs, then the names.

        Args:
            layers: all of the image's layers, bottom to top; those already complete cost nothing.

        Raises: FailedPrecondition naming a layer that was not unpacked; ResourceExhausted...
        Cancellation: before or after, not in between.
        Locks: one publish at a time.
        """
        async with self._publishing:
            new = [layer for layer in layers if not self.has(layer.chain_id)]
            for layer in new:
                if not self.staged(layer.chain_id):
                    raise FailedPrecondition(
                        f"layer {layer.diff_id} has not been unpacked: unpack it before publishing the image"
                    )
            if new:
                # The layers of an artifact share one tree.
                chain = list(dict.fromkeys(layer.chain_id for layer in layers))
                await trio.to_thread.run_sync(self._commit, chain)

    def _commit(self, chain: Sequence[str]) -> None:
        lowers: list[Path] = []
        new = []
        for chain_id in chain:
            staged = self._staged.get(chain_id)
            if staged is None:
                lowers.insert(0, self.tree(chain_id))
                continue
            new.append(chain_id)
            home = self._staging / home_name(chain_id)
            staged = self._staged[chain_id] = staged.settled(home / TREE, lowers)
            # Not durable one by one: the syncfs below covers them all.
            files.publish(home / RECORD, staged.encoded(), mode=0o600, durable=False)
            lowers.insert(0, home / TREE)
        sync_filesystem(self.directory)
        for chain_id in new:
            final = self.directory / home_name(chain_id)
            if final.exists():
                files.remove_tree(final)  # remains of a damaged layer: it has no valid record
            (self._staging / home_name(chain_id)).rename(final)
        files.sync_directory(self.directory)
        for chain_id in new:
            self._records[chain_id] = self._staged.pop(chain_id).record

    async def detach(self, chain_ids: Collection[str]) -> list[Detached]:
        """Take layers out of the store, complete or waiting for `publish`; the rest is for `delete`.

        A missing one is passed over. The caller makes sure that no image, container or pull needs them.
        Cancellation: between two layers; what is detached is deleted by the next `collect`.
        Locks: each layer in turn.
        """
        detached = []
        for chain_id in chain_ids:
            async with self._hold(chain_id):
                known = self._records.pop(chain_id, None)
                staged = self._staged.pop(chain_id, None)
                if known is None and staged is not None:
                    known = staged.record
                if known is not None:
                    path = await trio.to_thread.run_sync(self._detach, chain_id)
                    detached.append(Detached(path, known.used_bytes))
        if detached:
            # A layer half deleted by a power loss must not come back under its name.
            await trio.to_thread.run_sync(files.sync_directory, self.directory)
        return detached

    async def delete(self, trees: Collection[Detached]) -> None:
        """Delete what `detach` returned.

        Cancellation: between two trees.
        """
        for tree in trees:
            await trio.to_thread.run_sync(files.remove_tree, tree.path)

    def _detach(self, chain_id: str) -> Path:
        name = home_name(chain_id)
        path = self._staging / f"removed-{name}-{os.urandom(8).hex()}"
        for home in (self.directory / name, self._staging / name):
            with contextlib.suppress(FileNotFoundError):
                home.rename(path)
                break
        return path

    def detach_merged(self) -> list[Detached]:
        """Take the copies of whole images that a storage driver keeps out of the store. Blocks."""
        detached = []
        for merged in self.directory.glob(f"*/{MERGED}"):
            path = self._staging / f"removed-{merged.parent.name}-{os.urandom(8).hex()}"
            merged.rename(path)
            detached.append(Detached(path, 0))
        return detached

    async def collect(self) -> None:
        """Delete what interrupted work left: staging, half-deleted trees, directories without record.

        Work in progress is waited for and kept. Names that are not ours (`lost+found`) are left alone.
        Cancellation: between two of them.
        Locks: each layer in turn.
        """
        for path in await trio.to_thread.run_sync(self._remains):
            name = _NAME.match(path.name)
            if name is None:
                continue
            async with self._hold(f"sha256:{name['hex']}") as chain_id:
                live = self._staged if path.parent == self._staging else self._records
                if name["removed"] or chain_id not in live:
                    await trio.to_thread.run_sync(files.remove_tree, path)

    def _remains(self) -> list[Path]:
        return [*self._staging.iterdir(), *self.directory.iterdir()]

    @contextlib.asynccontextmanager
    async def _hold(self, chain_id: str) -> AsyncIterator[str]:
        lock = self._locks.setdefault(chain_id, trio.Lock())
        try:
            async with lock:
                yield chain_id
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(chain_id, None)
