"""urllib3's connections and pools on a leash (`noded.images.leash`)."""

from __future__ import annotations

import socket
from typing import Any, Final

import trio
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from noded.images.leash import LEASH, Lifeline

DEFAULT_CONNECT_SECONDS: Final = 30.0  # when urllib3 passes no timeout


async def _connect(host: str, port: int, seconds: float) -> socket.socket:
    with trio.fail_after(seconds):
        stream = await trio.open_tcp_stream(host, port)
    # trio's socket is non-blocking; the thread needs a blocking one with a timeout.
    sock = socket.socket(fileno=stream.socket.detach())
    sock.settimeout(seconds)
    return sock


class _Plain(HTTPConnection):
    """Connects by trio and hangs on the leash of the call that uses it."""

    lifeline: Lifeline | None = None

    def _new_conn(self) -> socket.socket:
        seconds = self.timeout if isinstance(self.timeout, int | float) else DEFAULT_CONNECT_SECONDS
        sock: socket.socket = trio.from_thread.run(_connect, self.host, self.port, seconds)
        self.lifeline = Lifeline(sock)
        LEASH.get().hold(self.lifeline)
        return sock

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.lifeline is not None and getattr(self, "sock", None) is not None:
            LEASH.get().hold(self.lifeline)
        super().request(*args, **kwargs)

    def close(self) -> None:
        super().close()
        if self.lifeline is not None:
            self.lifeline.abandon()
            self.lifeline = None


class _TLS(_Plain, HTTPSConnection):
    """The same, with TLS on top."""


class PlainPool(HTTPConnectionPool):
    """urllib3's pool, on a leash."""

    ConnectionCls = _Plain


class TLSPool(HTTPSConnectionPool):
    """urllib3's pool, on a leash."""

    ConnectionCls = _TLS
