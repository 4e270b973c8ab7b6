"""The effects of pulls, unpacking, commits and garbage collection, in the order in which they happen."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from noded.errors import Unavailable


@dataclass(frozen=True)
class Effect:
    """One function or method of the product that changes something.

    Args:
        stage: of what it is a part: pull, unpack, commit, gc.
        place: MODULE:NAME or MODULE:CLASS.NAME; a function where it is used, if that imports its name.
        ways: which calls come by: pull, remove, start.
        explained: its own errors are those of noded, not of the kernel.
    """

    stage: str
    name: str
    place: str
    ways: tuple[str, ...]
    explained: bool = False

    @property
    def point(self) -> str:
        """Its name among the faults."""
        return f"{self.stage}.{self.name}"

    def owner(self) -> tuple[Any, str]:
        """What holds it, and under which name."""
        module, _, path = self.place.partition(":")
        owner: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for one in classes:
            owner = getattr(owner, one)
        return owner, name

    @contextmanager
    def told(self) -> Iterator[None]:
        """A fault here, in the form in which it would come."""
        try:
            yield
        except OSError as error:
            if not self.explained:
                raise
            raise Unavailable(f"check the disk: {error}") from error


_LAYERS = "noded.images.layers"
_STAGED = "noded.images.staged_layer"
_LIBRARY = "noded.images.library:Library"
_CONTENT = "noded.images.content"
_ROWS = "noded.store.images:ImageRows"
_PULL, _REMOVE, _START = ("pull",), ("remove",), ("start",)

EFFECTS = (
    Effect("pull", "manifest", "noded.images.manifests:Manifests.find", _PULL, explained=True),
    Effect("pull", "lease", f"{_LIBRARY}.lease", _PULL, explained=True),
    Effect("pull", "lease-row", f"{_ROWS}.add_leases", _PULL, explained=True),
    Effect("pull", "blob-begin", f"{_CONTENT}:BlobWriter._recover", _PULL, explained=True),
    Effect("pull", "blob-write", f"{_CONTENT}:BlobWriter.write", _PULL, explained=True),
    Effect("pull", "blob-commit", f"{_CONTENT}:BlobWriter.commit", _PULL, explained=True),
    Effect("pull", "manifest-blob", "noded.images.download:Downloads.keep", _PULL, explained=True),
    Effect("unpack", "directory", "noded.images.extraction:fresh_tree", _PULL),
    Effect("unpack", "extract", "noded.images.unpack.client:Unpacker.unpack", _PULL, explained=True),
    Effect("unpack", "opaque", f"{_STAGED}:mark_opaque", _PULL),
    Effect("commit", "settle", f"{_STAGED}:StagedLayer.settled", _PULL),
    Effect("commit", "sync", f"{_LAYERS}:sync_filesystem", _PULL, explained=True),
    Effect("commit", "rename", f"{_LAYERS}:LayerStore._commit", _PULL),
    Effect("commit", "layers", f"{_LAYERS}:LayerStore.publish", _PULL, explained=True),
    Effect("commit", "image", f"{_LIBRARY}.publish", _PULL, explained=True),
    Effect("commit", "image-row", f"{_ROWS}.change", (*_PULL, *_REMOVE), explained=True),
    Effect("gc", "lease-row", f"{_ROWS}.delete_leases", (*_PULL, *_START), explained=True),
    Effect("gc", "sweep", f"{_LIBRARY}._sweep", (*_PULL, *_REMOVE, *_START), explained=True),
    Effect("gc", "blobs", f"{_LIBRARY}._delete_blobs", (*_PULL, *_REMOVE, *_START)),
    Effect("gc", "blob", f"{_CONTENT}:ContentStore.delete", (*_REMOVE, *_START)),
    Effect("gc", "part", f"{_CONTENT}:ContentStore.discard_partial", (*_PULL, *_REMOVE, *_START)),
    Effect("gc", "detach", f"{_LAYERS}:LayerStore._detach", _REMOVE),
    Effect("gc", "delete", f"{_LAYERS}:LayerStore.delete", _REMOVE, explained=True),
    Effect("gc", "remains", f"{_LAYERS}:LayerStore._remains", _START),
    Effect("gc", "collect", f"{_LAYERS}:LayerStore.collect", _START, explained=True),
)
