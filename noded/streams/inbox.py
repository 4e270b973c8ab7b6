"""Bytes on their way from a connection's reader to the one who consumes a channel."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

LIMIT_BYTES = 256 * 1024


class Inbox:
    """A byte queue with one producer and one consumer.

    The producer waits for `room` after it filled the queue, so it holds at most the limit and one
    read more.

    `lost` tells whether it ended without the peer having said so.

    Args:
        consumed: told how many bytes have left the queue.
    """

    def __init__(
        self, consumed: Callable[[int], None] = lambda _: None, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        self._consumed = consumed
        self._limit_bytes = limit_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._discarding = False
        self.lost = False
        self.abandoned = asyncio.Event()
        self._changed: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    @property
    def full(self) -> bool:
        return self._size >= self._limit_bytes

    def feed(self, data: bytes) -> None:
        """Add bytes; behind the end they are dropped."""
        if self._discarding or self._ended:
            self._consumed(len(data))
            return
        self._chunks.append(data)
        self._size += len(data)
        _wake(self._changed)

    def end(self, *, lost: bool = False) -> None:
        """No more bytes will come; `lost` because the connection has gone. Idempotent."""
        self.lost = self.lost or (lost and not self._ended)
        self._ended = True
        _wake(self._changed)

    def discard(self) -> None:
        """Drop what is here and all that comes: nobody reads any more."""
        self._discarding = True
        self._chunks.clear()
        size, self._size = self._size, 0
        if size:
            self._consumed(size)
        _wake(self._room)

    def abandon(self) -> None:
        """The peer has given up the channel in both directions: what is on its way counts no more."""
        self.discard()
        self.end(lost=True)
        self.abandoned.set()

    async def room(self) -> None:
        """Return when the queue is not full."""
        while self.full:
            self._room = asyncio.get_running_loop().create_future()
            await self._room

    async def read(self) -> bytes:
        """The next bytes, b"" at the end. Cancellation: loses nothing."""
        while not self._chunks:
            if self._ended:
                return b""
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if not self.full:
            _wake(self._room)
        self._consumed(len(chunk))
        return chunk


def _wake(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
