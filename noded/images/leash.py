"""Connections that can be shut down under a thread that waits on them.

Each connection keeps a duplicate of its socket, its *lifeline*; a call knows the one it uses now,
its *leash*. Cutting the leash shuts the socket down, and the thread's read, write or TLS handshake
ends at once. Name look-up and connect run on the trio side (happy eyeballs, cancellable by
themselves), from where the thread takes the finished socket.

A socket's timeout bounds the silence between two bytes, and a peer that sends its headers byte by byte
never reaches it. So the leash has a *patience* too, a deadline that is kept on the trio side.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio


class Lifeline:
    """A second handle on a connection's socket, to shut it down from another thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock: socket.socket | None = sock.dup()
        self._lock = threading.Lock()
        self._holders = 0  # for a moment two: a read-out connection is reused before it is let go
        self._unneeded = False

    @property
    def is_open(self) -> bool:
        return self._sock is not None

    def hold(self) -> None:
        with self._lock:
            self._holders += 1

    def let_go(self) -> None:
        """A call is done with the connection; a closed one needs its lifeline no more."""
        with self._lock:
            self._holders -= 1
            self._close_if_free()

    def abandon(self) -> None:
        """The connection is closed. Its socket may live on in a body that is still being read."""
        with self._lock:
            self._unneeded = True
            self._close_if_free()

    def cut(self) -> None:
        """Shut the connection down, so that whoever waits for it gets an error now."""
        with self._lock:
            if self._sock is not None:
                try:
                    self._sock.shutdown(socket.SHUT_RDWR)
                except OSError:  # the peer was faster
                    return

    def _close_if_free(self) -> None:
        if self._unneeded and not self._holders and self._sock is not None:
            self._sock.close()
            self._sock = None


class Leash:
    """The connection that one call waits on now."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lifeline: Lifeline | None = None
        self._cut = False
        self._patience = trio.CancelScope()
        self._waiting = False
        self.overdue = False  # patience ended, and with it the connection

    @contextmanager
    def patience(self, seconds: float) -> Iterator[None]:
        """Break the connection when the block takes longer. Only in the call's thread."""
        trio.from_thread.run_sync(self._set_patience, seconds)
        with self._lock:
            self.overdue, self._waiting = False, True
        try:
            yield
        finally:
            with self._lock:
                self._waiting = False

    def _set_patience(self, seconds: float) -> None:
        self._patience.deadline = trio.current_time() + seconds

    async def watch(self) -> None:
        """Serve `patience` until cancelled, and cut the leash then."""
        try:
            while True:
                with self._patience:
                    await trio.sleep_forever()
                self._patience = trio.CancelScope()
                with self._lock:
                    if self._waiting:  # else it ran out after the block had ended
                        self.overdue = True
                        if self._lifeline is not None:
                            self._lifeline.cut()
        finally:
            self.cut()

    def hold(self, lifeline: Lifeline) -> None:
        with self._lock:
            previous, self._lifeline = self._lifeline, lifeline
            if previous is not lifeline:
                lifeline.hold()
                if previous is not None:
                    previous.let_go()
            if self._cut:
                lifeline.cut()

    def let_go(self) -> None:
        with self._lock:
            lifeline, self._lifeline = self._lifeline, None
        if lifeline is not None:
            lifeline.let_go()

    def cut(self) -> None:
        """Break the call's present and later waits."""
        with self._lock:
            self._cut = True
            if self._lifeline is not None:
                self._lifeline.cut()


LEASH: ContextVar[Leash] = ContextVar("LEASH")  # how a connection deep in urllib3 finds its call
