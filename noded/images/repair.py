"""Finding what is damaged in the local store, and making it good from what is kept beside it.

Three depths. At every start names are looked at (`Library.load`): an image that lacks a blob or a layer
is set aside. After a crash of the node, sizes are compared too. `noded images verify` looks at the same,
and with `deep` it reads every blob and extracts every layer anew to compare the trees.

What is damaged is taken away, and an image that lost a layer is not listed until it has it again: from
its kept blob at once, else from its registry, or by the next pull, which brings only what is missing. A
start asks no registry. A tree below a running container is left alone, since its files would vanish under
the container.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from noded.errors import DataLoss, FailedPrecondition, NodedError, NotFound
from noded.images.filesystem import tree_size
from noded.images.layer_record import OWN_INODES
from noded.images.library import Library
from noded.model.image import Image, LayerRef
from noded.wire import manifest as manifests
from noded.wire.artifact import ArtifactFile, artifact_files
from noded.wire.manifest import MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Verdict:
    """What was found of one image.

    Args:
        problems: one line each.
        usable: whether containers can be made from it, after a repair if one was needed.
        repaired: whether it was damaged, and is not any more.
    """

    image: Image
    problems: list[str] = field(default_factory=list)
    usable: bool = True
    repaired: bool = False


# Brings blobs of an image from the registries that it has come from; see `Puller.restore`.
Restore = Callable[[Image, Sequence[LayerRef]], Awaitable[object]]


class Repairer:
    """Verifies and repairs the images of a library. One image at a time: it reads the whole disk.

    Args:
        restore: without it registries are not asked for what is damaged.
    """

    def __init__(self, library: Library, restore: Restore | None = None) -> None:
        self._library = library
        self._restore = restore
        self._content, self._layers = library.content, library.layers
        self._lock = trio.Lock()
        # Found good in this run: images share their lower layers. Apart from each other, since the chain ID
        # of a lowest layer that is not compressed is the digest of its blob.
        self._good_blobs: set[str] = set()
        self._good_trees: set[str] = set()

    async def verify(self, images: Sequence[Image], *, deep: bool) -> list[Verdict]:
        """Look at images, take away what is damaged, and repair it.

        Cancellation: between two blobs or layers, and in an extraction; what was found stays found.
        Locks: one verification at a time.
        """
        async with self._lock:
            self._forget()
            return [await self._verify(image, self._restore, deep=deep) for image in images]

    def _forget(self) -> None:
        self._good_blobs.clear()
        self._good_trees.clear()
        filecmp.clear_cache()  # it goes by sizes and times, which a disk that decays leaves alone

    async def after_crash(self) -> None:
        """Compare the sizes of everything that is listed."""
        async with self._lock:
            self._forget()
            verdicts = [await self._verify(image, None, deep=False) for image in self._library.own()]
        bad = [verdict for verdict in verdicts if verdict.problems]
        log.info("images checked after a crash of the node", images=len(verdicts), damaged=len(bad))

    async def repair_all(self) -> None:
        """Repair the images that a start set aside, as far as their blobs are kept."""
        async with self._lock:
            for image in self._library.damaged():
                problem = await self._repair(image, None)
                if problem:
                    log.warning("image not repaired, pull it again", image=image.id, problem=problem)

    async def _verify(self, image: Image, restore: Restore | None, *, deep: bool) -> Verdict:
        verdict = Verdict(image)
        complete = await self._check_documents(image, verdict)
        lost = await self._check_blobs(image, verdict, deep=deep, missing_too=restore is not None)
        if lost:
            await self._replace_blobs(image, lost, verdict, restore, deep=deep)
        broken = await self._check_trees(image, verdict, deep=deep)
        for problem in verdict.problems:
            log.warning("image damaged", image=image.id, tags=image.tags, problem=problem)
        if broken or not complete:
            held = await self._library.set_aside(broken, [] if complete else [image.id])
            if held:
                verdict.problems.append("a container uses it: remove the container, then verify again")
        if self._library.is_damaged(image.id):
            problem = await self._repair(image, restore)
            verdict.usable, verdict.repaired = not problem, not problem
            if problem:
                verdict.problems.append(f"not repaired, pull it again: {problem}")
        return verdict

    async def _check_documents(self, image: Image, verdict: Verdict) -> bool:
        """Whether manifest and configuration are there and good."""
        complete = True
        for digest, limit in (
            (image.manifest_digest, MAX_MANIFEST_BYTES),
            (image.config_digest, MAX_CONFIG_BYTES),
        ):
            try:
                await trio.to_thread.run_sync(self._content.read, digest, limit)
            except (NotFound, DataLoss) as error:
                verdict.problems.append(str(error))
                complete = False
                await trio.to_thread.run_sync(self._content.delete, digest)
        return complete

    async def _check_blobs(
        self, image: Image, verdict: Verdict, *, deep: bool, missing_too: bool
    ) -> list[LayerRef]:
        """The layers whose blobs are damaged.

        Args:
            missing_too: or are not there, though the store keeps blobs.
        """
        lost = []
        for layer in image.layers:
            if layer.blob_digest in self._good_blobs:
                continue
            if self._content.has(layer.blob_digest):
                problem = await self._blob_problem(layer, deep=deep)
            elif missing_too and self._library.keep_blobs:
                problem = "it is missing"
            else:
                continue  # an artifact's tree is looked at below
            if problem:
                verdict.problems.append(f"blob {layer.blob_digest}: {problem}")
                lost.append(layer)
            else:
                self._good_blobs.add(layer.blob_digest)
        return lost

    async def _blob_problem(self, layer: LayerRef, *, deep: bool) -> str:
        digest = layer.blob_digest
        try:
            if self._content.size(digest) != layer.size_bytes:
                return f"it has {self._content.size(digest)} bytes instead of {layer.size_bytes}"
            if deep:
                await trio.to_thread.run_sync(self._content.verify, digest)
        except (DataLoss, NotFound) as error:
            return str(error)
        return ""

    async def _replace_blobs(
        self,
        image: Image,
        lost: Sequence[LayerRef],
        verdict: Verdict,
        restore: Restore | None,
        *,
        deep: bool,
    ) -> None:
        """Download damaged blobs again, or take them away.

        A damaged one stays until the good one takes its place: a verification that is killed in between
        leaves something for the next one to find.
        """
        if restore is not None and self._library.keep_blobs:
            try:
                await restore(image, lost)
            except NodedError as error:
                verdict.problems.append(f"not downloaded again: {error}")
            else:
                verdict.repaired = True
                return
        for layer in lost:
            if await self._blob_problem(layer, deep=deep):
                await trio.to_thread.run_sync(self._content.delete, layer.blob_digest)

    async def _check_trees(self, image: Image, verdict: Verdict, *, deep: bool) -> set[str]:
        """Chain IDs whose trees are damaged."""
        if image.artifact is not None:
            problem = await trio.to_thread.run_sync(self._artifact_problem, image)
            verdict.problems += [problem] if problem else []
            return set(image.chain_ids) if problem else set()
        broken = set()
        for index, layer in enumerate(image.layers):
            if layer.chain_id in self._good_trees:
                continue
            problem = await self._tree_problem(layer, image.layers[:index], deep=deep)
            if problem:
                verdict.problems.append(f"{layer.diff_id}: {problem}")
                broken.add(layer.chain_id)
            else:
                self._good_trees.add(layer.chain_id)
        return broken

    async def _tree_problem(self, layer: LayerRef, lowers: Sequence[LayerRef], *, deep: bool) -> str:
        if not self._layers.has(layer.chain_id):
            return "the layer is missing"
        problem = await trio.to_thread.run_sync(self._size_problem, layer)
        # Without good lower layers there is nothing that the tree could be compared with.
        comparable = all(lower.chain_id in self._good_trees for lower in lowers)
        if problem or not deep or not comparable or not self._content.has(layer.blob_digest):
            return problem
        source = await trio.to_thread.run_sync(self._content.open, layer.blob_digest)
        try:
            return await self._layers.compare(layer, [lower.chain_id for lower in lowers], source)
        finally:
            os.close(source)

    def _artifact_problem(self, image: Image) -> str:
        """Its files are links to its blobs, which have been looked at; or copies of what was one."""
        if not all(self._layers.has(chain_id) for chain_id in image.chain_ids):
            return "its files are missing"
        try:
            for chain_id in image.chain_ids:
                for file in self._artifact_files(image):
                    ours, blob = self._layers.tree(chain_id) / file.path, self._content.path(file.blob_digest)
                    if not ours.samefile(blob) and not filecmp.cmp(ours, blob, shallow=False):
                        return f"its file {file.path!r} is not what its blob is"
        except (NodedError, OSError) as error:
            return str(error)
        return ""

    def _size_problem(self, layer: LayerRef) -> str:
        record = self._layers.record(layer.chain_id)
        # Not of the whole directory: a storage driver may keep its own copy beside the tree.
        size = tree_size(self._layers.tree(layer.chain_id))
        inodes = size.used_inodes + OWN_INODES
        if inodes != record.used_inodes:
            return f"its tree has {inodes} files and directories instead of {record.used_inodes}"
        # Not the blocks on disk: a file system that compresses has fewer than were reserved.
        if record.length_bytes not in (-1, size.length_bytes):
            return f"its files have {size.length_bytes} bytes instead of {record.length_bytes}"
        return ""

    async def _repair(self, image: Image, restore: Restore | None) -> str:
        """Make an image whole from its blobs; returns why that is not possible, "" when it is done."""
        owner = f"repair-{image.id}"
        try:
            await self._library.lease(_digests(image), owner)
            if restore is not None and (absent := self._absent(image)):
                await restore(image, absent)
            await self._restore_trees(image)
            await self._layers.publish(image.layers)
            await self._library.publish(image)
        except NodedError as error:
            return str(error)
        finally:
            with trio.move_on_after(60, shield=True):
                await self._library.release(owner)
        log.info("image repaired", image=image.id, tags=image.tags)
        return ""

    def _absent(self, image: Image) -> list[LayerRef]:
        """Layers that have neither tree nor blob."""
        return [
            layer
            for layer in image.layers
            if not self._layers.has(layer.chain_id) and not self._content.has(layer.blob_digest)
        ]

    async def _restore_trees(self, image: Image) -> None:
        missing = [layer for layer in image.layers if not self._layers.has(layer.chain_id)]
        if image.artifact is not None:
            if missing:
                files = await trio.to_thread.run_sync(self._artifact_files, image)
                await self._layers.assemble(image.layers, files, self._content)
            return
        for layer in missing:
            source = await trio.to_thread.run_sync(self._content.open, layer.blob_digest)
            try:
                await self._layers.unpack(layer, source)
            except DataLoss:
                await trio.to_thread.run_sync(self._content.delete, layer.blob_digest)
                raise
            finally:
                os.close(source)

    def _artifact_files(self, image: Image) -> Sequence[ArtifactFile]:
        data = self._content.read(image.manifest_digest, MAX_MANIFEST_BYTES)
        manifest = manifests.parse_manifest(data)
        if not isinstance(manifest, manifests.Manifest):
            raise FailedPrecondition(f"{image.manifest_digest} is an index")
        return artifact_files(manifest)


def _digests(image: Image) -> Collection[str]:
    blobs = (layer.blob_digest for layer in image.layers)
    return {image.manifest_digest, image.config_digest, *blobs, *image.chain_ids}
