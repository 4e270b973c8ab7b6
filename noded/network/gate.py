"""Keeps GC apart from ADD and DEL, as the specification demands, without ever making a pod wait long.

Many may pass (ADD, DEL, CHECK) or one may close the gate (GC). Who wants to close it waits for a
quiet moment and keeps nobody out meanwhile, so one slow ADD never holds up the others.

Spec: 1.1.0 section "Locking and ordering": gc runs alone, or add and delete run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from noded.tracing.spans import wait


class Gate:
    """A readers-writer lock that prefers readers. Neither way of leaving awaits anything."""

    def __init__(self) -> None:
        self._passing = 0
        self._closed = False
        self._changed = trio.Event()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Be one of many; waits while the gate is closed."""
        with wait("wait for CNI GC"):
            while self._closed:
                await self._changed.wait()
        self._passing += 1
        try:
            yield
        finally:
            self._passing -= 1
            self._announce()

    async def quiet(self) -> None:
        """Return when nobody is passing and the gate is open; `closed` must follow without an await."""
        while self._passing or self._closed:
            await self._changed.wait()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Be the only one. Enter it right after `quiet`."""
        assert not self._passing
        assert not self._closed
        self._closed = True
        try:
            yield
        finally:
            self._closed = False
            self._announce()

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
