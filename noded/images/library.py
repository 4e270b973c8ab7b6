"""The local images: names, contents and their removal.

Theory of operation. All images are in memory after `load`; questions are answered from there. A change
is made durable in the database first, then in memory, and bytes are deleted last: a row never names
bytes that are not there (bytes before rows), and bytes that no row names are garbage.

A pull takes a *lease* on every digest and chain ID before it looks whether they are there, so that a
collection at the same time does not take away what it found. Blobs and layers that no image, lease or
container names go at once. Leases do not outlive the daemon: `collect`, after a start, drops them and
with them what interrupted pulls left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import structlog
import trio

from noded.errors import FailedPrecondition
from noded.images.content import ContentStore
from noded.images.disk_usage import ImageUsage, image_usages
from noded.images.filesystem_info import DiskUse
from noded.images.gc import find_garbage
from noded.images.layers import LayerStore
from noded.images.names import Meanings, Names, is_pinned
from noded.images.stores import AdditionalStores
from noded.model.image import FilesystemInfo, Image
from noded.model.paths import Layout
from noded.store.images import ImageRows, decode

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Freed:
    """What a collection deleted."""

    used_bytes: int = 0
    blobs: int = 0
    layers: int = 0


class Library:
    """The images of one noded instance.

    Args:
        pinned: references or globs; images with such a name are marked for kubelet's collector.
        keep_blobs: keep compressed layers of complete images (`save` and repair need them).
    """

    def __init__(
        self,
        *,
        content: ContentStore,
        layers: LayerStore,
        rows: ImageRows,
        layout: Layout,
        pinned: Sequence[str] = (),
        keep_blobs: bool = True,
    ) -> None:
        self.content = content
        self.layers = layers
        self._rows = rows
        self._pinned = tuple(pinned)
        self.keep_blobs = keep_blobs
        self._names = Names()
        self._damaged = Names()
        self._leases: dict[str, set[str]] = {}  # by owner
        self._stale_owners: set[str] = set()
        self._doubtful: set[str] = set()  # images of whose rows a failed commit leaves nothing certain
        self.owed = trio.Event()  # set while a collection is due, since a deletion did not come to its end
        self._in_use: Callable[[], Collection[str]] | None = None
        self._meanings: Meanings | None = None
        self._stores: AdditionalStores | None = None
        self._kept: Callable[[], Collection[str]] = tuple
        self._disk_use = DiskUse(content, layers, layout)
        # Held while what is needed is compared with what is stored, and while that changes.
        self._lock = trio.Lock()

    def set_in_use(self, in_use: Callable[[], Collection[str]]) -> None:
        """Tell which chain IDs containers need. Until then no layer is ever deleted."""
        self._in_use = in_use

    def set_kept(self, kept: Callable[[], Collection[str]]) -> None:
        """Tell which blobs are needed beside those of images."""
        self._kept = kept

    def set_meanings(self, meanings: Meanings) -> None:
        """Tell what short names mean (registries.conf). Until then they are names on docker.io."""
        self._meanings = meanings

    def set_stores(self, stores: AdditionalStores) -> None:
        """Tell of image stores that are only read. Their images come after those of the same name here."""
        self._stores = stores

    async def load(self) -> None:
        """Read all images. Call once, before anything else.

        An image with a missing blob or layer is not listed, since no container can be made from it;
        its row and the rest of its bytes stay, so that a pull repairs it cheaply.
        """
        records, leases = await self._rows.load()
        images = []
        for image_id, record in records.items():
            try:
                images.append(decode(record))
            except ValueError as error:
                log.error("image row unreadable", image=image_id, error=str(error))
        problems = await trio.to_thread.run_sync(lambda: [self._problem(image) for image in images])
        for image, problem in zip(images, problems, strict=True):
            if problem:
                log.warning(
                    "image incomplete, pull it again", image=image.id, tags=image.tags, problem=problem
                )
                self._damaged.put([image])
            else:
                self._names.put([replace(image, pinned=is_pinned(image, self._pinned))])
        self._stale_owners = {owner for _, owner in leases}

    def own(self) -> tuple[Image, ...]:
        """All complete images of the local store."""
        return tuple(self._names)

    def list(self) -> tuple[Image, ...]:
        """All complete images, those of additional stores too."""
        own = tuple(self._names)
        if self._stores is None:
            return own
        return (*own, *(image for image in self._stores.images() if self._names.get(image.id) is None))

    def get(self, reference: str) -> Image | None:
        """The image with this ID, unique start of an ID, tag or digest reference; None if there is none.

        Raises: InvalidArgument for a malformed reference or an ambiguous start.
        """
        found = self._names.find(reference, self._meanings)
        if found is None and self._stores is not None:
            return self._stores.find(reference, self._meanings)
        return found

    async def publish(self, image: Image, *references: str) -> Image:
        """Make a complete image known under its own names and `references`; returns it as it is kept.

        A tag that another image has moves to this one. Repeating it is success.

        Raises: FailedPrecondition when a blob or layer is missing.
        Cancellation: before or after, not in between.
        """
        problem = await trio.to_thread.run_sync(self._problem, image)
        if problem:
            raise FailedPrecondition(f"image {image.id} cannot be published: {problem}")
        async with self._lock:
            image = replace(image, created_at_ns=image.created_at_ns or time.time_ns())
            changed = self._names.merged(image, references)
            changed = [replace(item, pinned=is_pinned(item, self._pinned)) for item in changed]
            damaged = self._damaged.losers(changed[0])
            with trio.CancelScope(shield=True):
                await self._change([*changed, *damaged], ())
                self._names.put(changed)
                self._damaged.put(damaged)
                self._damaged.drop(image.id)  # this was its repair
            return changed[0]

    async def remove(self, reference: str) -> Freed:
        """Remove an image with all its names, and free what only it needed. An unknown one is success.

        Layers below a container's root file system stay until the container is gone.

        Cancellation: the image is removed, or not; what is left of its bytes goes with the next sweep.
        """
        image = self._names.find(reference, self._meanings) or self._damaged.find(reference, self._meanings)
        if image is None:
            if self._stores is not None and (kept := self._stores.find(reference, self._meanings)):
                raise FailedPrecondition(
                    f"image {reference!r} is in the additional image store {self._stores.home(kept)}, which "
                    "is only read: it cannot be removed here"
                )
            return Freed()
        async with self._lock:
            with trio.CancelScope(shield=True):
                await self._change((), [image.id])
                self._names.drop(image.id)
                self._damaged.drop(image.id)
        freed = await self.sweep()
        log.info("image removed", image=image.id, tags=image.tags, freed_bytes=freed.used_bytes)
        return freed

    def damaged(self) -> tuple[Image, ...]:
        """Images that lack something, which no client sees."""
        return tuple(self._damaged)

    def is_damaged(self, image_id: str) -> bool:
        return self._damaged.get(image_id) is not None

    async def set_aside(self, chain_ids: Collection[str], image_ids: Collection[str] = ()) -> frozenset[str]:
        """Delete damaged layers, and list the images no more that have them, until they are repaired.

        Args:
            image_ids: images that are damaged in another way.

        Returns: chain IDs of layers that containers stand on; nothing was done about those.
        Cancellation: between two layers.
        """
        async with self._lock:
            held = frozenset(chain_ids) if self._in_use is None else frozenset(chain_ids) & {*self._in_use()}
            doomed = frozenset(chain_ids) - held
            for image in tuple(self._names):
                if image.id in image_ids or doomed.intersection(image.chain_ids):
                    self._names.drop(image.id)
                    self._damaged.put([image])
            detached = await self.layers.detach(doomed)
            # Copies of images that storage drivers keep may have been made from what is damaged.
            detached += await trio.to_thread.run_sync(self.layers.detach_merged)
        await self.layers.delete(detached)
        return held

    async def lease(self, digest: str | Collection[str], owner: str) -> None:
        """Keep blobs (digests) and layers (chain IDs) from being collected until `release`.

        Take it before looking whether they are there.
        """
        wanted = {digest} if isinstance(digest, str) else set(digest)
        async with self._lock:
            new = wanted - self._leases.get(owner, set())
            if new:
                # First in memory, so that `release` deletes what a failed commit may have written.
                self._leases.setdefault(owner, set()).update(new)
                await self._rows.add_leases(new, owner)

    async def release(self, owner: str) -> Freed:
        """End the leases of `owner`, and free what nobody else needs. No leases is success.

        Call it under a shield: it is what cleans up after a cancelled pull.
        """
        async with self._lock:
            if owner not in self._leases:
                return Freed()
            # First in memory: what the lease held must go even if the database is full of trouble.
            del self._leases[owner]
            self._stale_owners.add(owner)
            try:
                await self._change((), ())
                await self._drop_stale_leases()
            except Exception as error:
                log.warning("lease not deleted yet", owner=owner, error=str(error))
                self.owed.set()
        return await self.sweep()

    async def _change(self, put: Collection[Image], delete: Collection[str]) -> None:
        """Write rows; also those that a failed commit left in doubt, as memory has them.

        Locks: the caller's.
        """
        told = {image.id for image in put} | {*delete}
        doubtful = self._doubtful - told
        if not told and not doubtful:
            return
        known = {image.id: image for image in (*self._damaged, *self._names)} if doubtful else {}
        self._doubtful |= told
        await self._rows.change(
            [*put, *(known[one] for one in doubtful if one in known)],
            [*delete, *(one for one in doubtful if one not in known)],
        )
        self._doubtful.clear()

    async def _drop_stale_leases(self) -> None:
        for owner in self._stale_owners - self._leases.keys():
            await self._rows.delete_leases(owner)
            self._stale_owners.discard(owner)

    async def sweep(self) -> Freed:
        """Delete every blob and layer that nobody names. Call it when a container was removed.

        Cancellation: at any time. What is left then, or after an error, is `owed`.
        """
        try:
            return await self._sweep()
        except BaseException:
            self.owed.set()
            raise

    async def _sweep(self) -> Freed:
        async with self._lock:
            blobs = await trio.to_thread.run_sync(lambda: dict(self.content.blobs()))
            leased = {digest for held in self._leases.values() for digest in held} | {*self._kept()}
            garbage = find_garbage(
                images=[*self._names, *self._damaged],
                leased=leased,
                in_use=None if self._in_use is None else self._in_use(),
                blobs=blobs,
                layers=self.layers.known(),
                keep_blobs=self.keep_blobs,
            )
            used_bytes = sum(blobs[digest] for digest in garbage.blobs)
            used_bytes += await trio.to_thread.run_sync(self._delete_blobs, garbage.blobs, leased)
            doomed = await self.layers.detach(garbage.layers)
        # Trees take long to delete, and nothing can find them any more: no lock for that.
        await self.layers.delete(doomed)
        freed = Freed(used_bytes + sum(tree.used_bytes for tree in doomed), len(garbage.blobs), len(doomed))
        if freed.blobs or freed.layers:
            log.info("freed", bytes=freed.used_bytes, blobs=freed.blobs, layers=freed.layers)
        return freed

    async def collect(self) -> Freed:
        """Drop leases that nobody holds, and all bytes that interrupted work left.

        Call it after a start, when containers are known (`set_in_use`), and when one is `owed`.

        Cancellation: at any time; it is `owed` then.
        """
        if self.owed.is_set():
            self.owed = trio.Event()
        try:
            async with self._lock:
                await self._change((), ())
                await self._drop_stale_leases()
            await self.layers.collect()
        except BaseException:
            self.owed.set()
            raise
        return await self.sweep()

    async def usages(self) -> Sequence[ImageUsage]:
        """What each listed image takes on disk."""
        blobs = await trio.to_thread.run_sync(lambda: dict(self.content.blobs()))
        layers = {record.chain_id: record.used_bytes for record in self.layers.records()}
        in_use = () if self._in_use is None else self._in_use()
        return image_usages(self._names, blobs, layers, in_use)

    async def fs_info(self) -> FilesystemInfo:
        """Disk use; see `DiskUse.measure`."""
        return await self._disk_use.measure()

    def _problem(self, image: Image) -> str:
        """Why no container can be made from an image, "" if one can. Looks at names only.

        A deep check after an unclean shutdown would come in here.
        """
        for what, digest in (("manifest", image.manifest_digest), ("configuration", image.config_digest)):
            if not self.content.has(digest):
                return f"its {what} {digest} is missing"
        for layer in image.layers:
            if not self.layers.has(layer.chain_id):
                return f"its layer {layer.diff_id} is missing"
        return ""

    def _delete_blobs(self, digests: Collection[str], leased: Collection[str]) -> int:
        for digest in digests:
            self.content.delete(digest)
        return self.content.discard_partial(keep=leased)
