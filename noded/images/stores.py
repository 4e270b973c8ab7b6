"""Additional image stores: directories with unpacked images, shared by many nodes, that are only read.

    noded-store.json         {"layout": 1}
    images/HEX.json          the image's record, published last
    layers/CHAIN_HEX/        fs/ and record.json, as in the local store

`noded images export-store` writes one. Its images are listed as pinned, and their layers are mounted where
they are. Such a directory is often on a network file system, whose server may be gone: then every call
on it hangs, and the thread can be neither cancelled nor killed. So what is in a store is read into memory,
by one thread of its own for each store, which is left behind after a deadline; and before layers are
mounted, that thread looks whether the store answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog
import trio

from noded.errors import DataLoss, FailedPrecondition, NodedError, NotFound, Unavailable
from noded.host import libc
from noded.images.layer_record import LayerRecord, read_records
from noded.images.layers import LayerStore
from noded.images.names import Meanings, Names
from noded.model.image import Image
from noded.store.images import decode

log = structlog.get_logger(__name__)

MARK = "noded-store.json"
LAYOUT = 1
IMAGES, LAYERS = "images", "layers"
_ANSWER_SECONDS = 10.0
_START_SECONDS = 2.0  # how long a start waits for them before it accepts changes
T = TypeVar("T")


@dataclass(slots=True)
class _Store:
    path: Path
    names: Names = field(default_factory=Names)
    records: Mapping[str, LayerRecord] = field(default_factory=dict)
    state: str = ""  # of the directory when it was read
    problem: str = "it has not been read yet"
    asked: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(1))

    def tree(self, chain_id: str) -> Path:
        return self.path / LAYERS / chain_id.partition(":")[2] / "fs"


class AdditionalStores:
    """The additional image stores of one noded instance, in the order in which they are searched.

    Args:
        answer_seconds: how long a store may take for an answer.
    """

    def __init__(self, paths: Sequence[Path], *, answer_seconds: float = _ANSWER_SECONDS) -> None:
        self._stores = [_Store(path) for path in paths]
        self._answer_seconds = answer_seconds
        self._read = trio.Event()

    async def begin(self) -> None:
        """Read the stores for the first time."""
        await self.refresh()
        self._read.set()

    async def begun(self) -> None:
        """Wait until the stores have been read, but not long for one that does not answer."""
        with trio.move_on_after(_START_SECONDS):
            await self._read.wait()

    def images(self) -> tuple[Image, ...]:
        """All images of all stores, each once."""
        found: dict[str, Image] = {}
        for store in self._stores:
            for image in store.names:
                found.setdefault(image.id, image)
        return tuple(found.values())

    def find(self, reference: str, meanings: Meanings | None) -> Image | None:
        """As `Names.find`, in the first store that has it."""
        return next((image for one in self._stores if (image := one.names.find(reference, meanings))), None)

    def home(self, image: Image) -> Path:
        """The store that an image is in."""
        return next(store.path for store in self._stores if store.names.get(image.id) is not None)

    def record(self, chain_id: str) -> LayerRecord | None:
        """What is known of a layer, None when no store has it."""
        return next((one.records[chain_id] for one in self._stores if chain_id in one.records), None)

    def tree(self, chain_id: str) -> Path | None:
        """The tree of a layer, None when no store has it."""
        return next((one.tree(chain_id) for one in self._stores if chain_id in one.records), None)

    def problems(self) -> Mapping[Path, str]:
        """Why a store cannot be used, by its path."""
        return {store.path: store.problem for store in self._stores if store.problem}

    async def refresh(self) -> None:
        """Read the stores again that have changed. What is wrong with one is logged, and no error.

        Cancellation: safe. Takes `answer_seconds` at most.
        """
        async with trio.open_nursery() as nursery:
            for store in self._stores:
                nursery.start_soon(self._refresh, store)

    async def _refresh(self, store: _Store) -> None:
        if not store.asked.available_tokens:
            return  # it is being asked, maybe for long: nobody else need wait
        try:
            found = await self._ask(store, partial(_read, store.path, store.state))
        except Unavailable as error:
            # What is in memory stays: lists do not forget images because a server is slow for once.
            self._note(store, str(error))
            return
        except NodedError as error:
            store.names, store.records, store.state = Names(), {}, ""
            self._note(store, str(error))
            return
        if found is not None:
            store.state, images, store.records = found
            store.names = Names()
            store.names.put(images)
            log.info("additional image store read", path=str(store.path), images=len(images))
        self._note(store, "")

    def _note(self, store: _Store, problem: str) -> None:
        if problem and problem != store.problem:
            log.warning("additional image store cannot be used", path=str(store.path), problem=problem)
        store.problem = problem

    async def reach(self, chain_ids: Collection[str]) -> None:
        """Make sure that the stores of these layers answer now.

        Raises: Unavailable, FailedPrecondition naming the store.
        Cancellation: safe. Takes `answer_seconds` at most for each store.
        """
        for store in self._stores:
            wanted = [chain_id for chain_id in chain_ids if chain_id in store.records]
            if wanted:
                await self._ask(store, partial(_look, store.path, [store.tree(one) for one in wanted]))

    async def _ask(self, store: _Store, look: Callable[[], T]) -> T:
        with trio.move_on_after(self._answer_seconds):
            # One thread for a store, however many ask: the others wait for their turn.
            return await trio.to_thread.run_sync(look, abandon_on_cancel=True, limiter=store.asked)
        raise Unavailable(
            f"the additional image store {store.path} does not answer within {self._answer_seconds:g} s: "
            "look after its server, or pull the image to this node"
        )


class AllLayers:
    """The layers that containers may stand on: those of the local store first."""

    def __init__(self, local: LayerStore, stores: AdditionalStores) -> None:
        self.directory = local.directory
        self._local, self._stores = local, stores

    def has(self, chain_id: str) -> bool:
        """Whether the layer is complete in some store."""
        return self._local.has(chain_id) or self._stores.record(chain_id) is not None

    def record(self, chain_id: str) -> LayerRecord:
        """Raises: NotFound."""
        found = None if self._local.has(chain_id) else self._stores.record(chain_id)
        return found or self._local.record(chain_id)

    def tree(self, chain_id: str) -> Path:
        """The directory to mount."""
        found = None if self._local.has(chain_id) else self._stores.tree(chain_id)
        return found or self._local.tree(chain_id)

    async def reach(self, image: Image) -> None:
        """Make sure that those of an image that are not here can be reached. As `AdditionalStores.reach`."""
        missing = [chain_id for chain_id in image.chain_ids if not self._local.has(chain_id)]
        if missing:
            await self._stores.reach(missing)


def _read(path: Path, before: str) -> tuple[str, list[Image], dict[str, LayerRecord]] | None:
    """What is in a store, None when it is as `before`."""
    check_mark(path)
    try:
        state = ":".join(str((path / name).stat().st_mtime_ns) for name in (MARK, IMAGES, LAYERS))
        if state == before:
            return None
        records = {record.chain_id: record for record in read_records(path / LAYERS)}
        images = []
        for file in sorted((path / IMAGES).glob("*.json")):
            try:
                image = decode(file.read_text())
            except ValueError as error:
                log.warning("image of an additional store is unreadable", path=str(file), error=str(error))
                continue
            missing = set(image.chain_ids) - records.keys()
            if missing:
                log.warning(
                    "image of an additional store is incomplete", path=str(file), missing=min(missing)
                )
                continue
            images.append(replace(image, pinned=True))  # kubelet's collector must not try to remove it
        return state, images, records
    except OSError as error:
        raise libc.os_error(error, f"cannot read the additional image store {path}") from None


def check_mark(path: Path) -> None:
    """Raises: NotFound, DataLoss, FailedPrecondition when a directory is no store that this can read."""
    try:
        layout = json.loads((path / MARK).read_bytes())["layout"]
    except (FileNotFoundError, NotADirectoryError):
        raise NotFound(
            f"{path} is no additional image store: write one with `noded images export-store`"
        ) from None
    except OSError as error:
        raise libc.os_error(error, f"cannot read the additional image store {path}") from None
    except (ValueError, KeyError, TypeError):
        raise DataLoss(f"{path / MARK} is damaged: write the store again") from None
    if not isinstance(layout, int) or layout > LAYOUT:
        raise FailedPrecondition(
            f"the additional image store {path} has layout {layout}, this noded reads {LAYOUT}: update noded"
        )


def _look(path: Path, trees: Sequence[Path]) -> None:
    check_mark(path)
    for tree in trees:
        if not tree.is_dir():
            raise FailedPrecondition(f"the additional image store {path} has lost layer {tree.parent.name}")
