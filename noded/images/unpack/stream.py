"""Exact reads over a supplier of chunks."""

from __future__ import annotations

from collections.abc import Callable

from noded.images.unpack.faults import corrupt

_NOTHING = memoryview(b"")


class ByteStream:
    """A forward-only view of the bytes that `supply` returns, until it returns b"".

    Raises (from all reads): LayerFault(corrupt) when the bytes end early.
    """

    __slots__ = ("_chunk", "_end", "_position", "_supply", "_view")

    def __init__(self, supply: Callable[[], bytes]) -> None:
        self._supply = supply
        self._chunk = b""
        self._view = _NOTHING
        self._position = 0
        self._end = 0

    def read(self, size: int) -> bytes:
        """The next `size` bytes. For small sizes: they are copied."""
        start, end = self._position, self._position + size
        if end <= self._end:
            self._position = end
            return self._chunk[start:end]
        parts = []
        while size:
            part = self.piece(size)
            parts.append(bytes(part))
            size -= len(part)
        return b"".join(parts)

    def piece(self, most: int) -> memoryview:
        """Between 1 and `most` bytes, not copied, valid until the next call."""
        if self._position == self._end and not self._refill():
            raise corrupt("the archive ends early")
        start = self._position
        self._position = end = min(start + most, self._end)
        return self._view[start:end]

    def skip(self, size: int) -> None:
        """Pass over bytes. Raises: LayerFault when there are fewer."""
        end = self._position + size
        if end <= self._end:
            self._position = end
            return
        while size:
            size -= len(self.piece(size))

    def at_end(self) -> bool:
        """Whether there is no byte left; may read."""
        return self._position == self._end and not self._refill()

    def _refill(self) -> bool:
        self._chunk = chunk = self._supply()
        self._view = memoryview(chunk)
        self._position = 0
        self._end = len(chunk)
        return bool(chunk)
