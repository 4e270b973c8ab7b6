"""How much disk the writable layers of containers take."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.images.filesystem import tree_usage

log = structlog.get_logger(__name__)

BASE = "base.json"
_MAX_AGE_NS = 30 * 1_000_000_000  # walking every writable layer is dear, and kubelet asks each 10 s


@dataclass(frozen=True, slots=True)
class Measurement:
    used_bytes: int
    used_inodes: int
    measured_at_ns: int


@dataclass(frozen=True, slots=True)
class Base:
    """What a copying storage driver put into a container's directory.

    Args:
        used_bytes, used_inodes: of the copy of the image, when it was made.
        shared: the copy shares its blocks with the image, so it takes no room of its own.
    """

    used_bytes: int = 0
    used_inodes: int = 0
    shared: bool = True


def read_base(data: Path) -> Base:
    """The base of a container's directory; zeros where the storage driver makes no copies. Blocks.

    One that cannot be read, as a power cut may leave it, counts as zeros too: the usage of one container is
    then too high, that of the others and of the node is still known.
    """
    try:
        return _parse_base((data / BASE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return Base()
    except (OSError, ValueError) as error:
        log.warning(
            "cannot read what an image took of a container: all of it counts as written",
            path=str(data / BASE),
            error=str(error),
        )
        return Base()


def _parse_base(text: bytes) -> Base:
    """Raises: ValueError."""
    match json.loads(text):
        case {"used_bytes": int(used_bytes), "used_inodes": int(used_inodes), "shared": bool(shared)}:
            return Base(used_bytes, used_inodes, shared)
    raise ValueError("it does not hold used_bytes, used_inodes and shared")


def container_usage(data: Path) -> tuple[int, int]:
    """(bytes, inodes) of what a container wrote; zeros when there is no such container. Blocks."""
    upper = data / "upper"
    if upper.is_dir():
        return tree_usage(upper)
    used_bytes, used_inodes = tree_usage(data / "tree")
    base = read_base(data)
    return (max(0, used_bytes - base.used_bytes), max(0, used_inodes - base.used_inodes))


def all_usage(directory: Path) -> tuple[int, int]:
    """(bytes, inodes) that a directory of container directories takes on disk. Blocks."""
    used_bytes, used_inodes = tree_usage(directory)
    for base in (read_base(path.parent) for path in directory.glob(f"*/{BASE}")):
        # Inodes are a snapshot's own, so to say: the file system made them for it.
        used_bytes -= base.used_bytes if base.shared else 0
    return max(0, used_bytes), used_inodes


class WritableLayers:
    """Measures a directory of container directories, at most every 30 s."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._last = Measurement(0, 0, 0)
        self._lock = trio.Lock()

    async def measure(self) -> Measurement:
        """What all containers take together.

        Cancellation: waits for a walk in progress.
        Locks: one walk at a time; others wait for its result.
        """
        async with self._lock:
            now = time.time_ns()
            if not 0 <= now - self._last.measured_at_ns < _MAX_AGE_NS:
                used_bytes, used_inodes = await trio.to_thread.run_sync(all_usage, self._directory)
                self._last = Measurement(used_bytes, used_inodes, now)
            return self._last
