"""The Prometheus endpoint: GET /metrics over HTTP/1.1, on a TCP address or a unix socket.

It is for scrapers inside the node's trust boundary: no TLS, no login. Off unless configured.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from noded.engine.metrics import CONTENT_TYPE
from noded.errors import InvalidArgument, Unavailable

log = structlog.get_logger(__name__)

_LAG_PERIOD_SECONDS = 1.0
_REQUEST_BYTES = 8192
_REQUEST_SECONDS = 10.0
_MOST_CLIENTS = 16
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Busy"}


class MetricsServer:
    """Serves what `text` returns.

    Args:
        listen: `HOST:PORT`, `[IPv6]:PORT` or an absolute path; "" = nothing is served.
        lag: told each second how late the event loop was, in seconds.
    """

    def __init__(self, listen: str, text: Callable[[], str], lag: Callable[[float], None]) -> None:
        self._listen = listen
        self._text = text
        self._lag = lag
        self._server: asyncio.Server | None = None
        self._clock: asyncio.Task[None] | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises: InvalidArgument naming metrics.listen; Unavailable when it is taken."""
        if not self._listen:
            return
        host, port, path = parse_listen(self._listen)
        try:
            if path:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                self._server = await asyncio.start_unix_server(self._accept, path, limit=_REQUEST_BYTES)
                os.chmod(path, 0o600)
            else:
                self._server = await asyncio.start_server(self._accept, host, port, limit=_REQUEST_BYTES)
        except OSError as error:
            raise Unavailable(
                f"metrics.listen: cannot listen on {self._listen}: {error.strerror or error}"
            ) from None
        self._clock = asyncio.create_task(self._measure_lag(), name="loop lag")
        log.info("metrics served", listen=self.address)

    @property
    def address(self) -> str:
        """Where it listens, with the port that the kernel chose for port 0."""
        if self._server is None or not self._server.sockets:
            return ""
        name = self._server.sockets[0].getsockname()
        if isinstance(name, str):
            return name
        host = f"[{name[0]}]" if ":" in name[0] else name[0]
        return f"{host}:{name[1]}"

    async def close(self) -> None:
        """Stop listening and end connections. Idempotent."""
        tasks = [*self._clients, *([self._clock] if self._clock is not None else [])]
        if self._server is not None:
            path = self._server.sockets[0].getsockname() if self._server.sockets else ""
            self._server.close()
            if isinstance(path, str) and path:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._server = self._clock = None

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self._lag(time.monotonic() - due)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="metrics")
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                busy = len(self._clients) > _MOST_CLIENTS
                writer.write(_response(503, "too many clients\n") if busy else await self._answer(reader))
                await writer.drain()
        except (OSError, TimeoutError):  # a client that is slow or gone
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _response(400, "not an HTTP request\n")
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(400, "not an HTTP request\n")
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return _response(405, "use GET\n")
        if target.split(b"?", 1)[0] != b"/metrics":
            return _response(404, "metrics are at /metrics\n")
        return _response(200, self._text(), CONTENT_TYPE, body=method == b"GET")


def parse_listen(listen: str) -> tuple[str, int, str]:
    """(host, port, "") or ("", 0, path) of `metrics.listen`. Raises: InvalidArgument."""
    if listen.startswith("/"):
        return "", 0, listen
    host, separator, port = listen.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise InvalidArgument(
            f"metrics.listen: {listen!r} is neither HOST:PORT, as 127.0.0.1:9090, nor an absolute path"
        )
    return host, int(port), ""


def _response(status: int, text: str, kind: str = "text/plain; charset=utf-8", *, body: bool = True) -> bytes:
    data = text.encode()
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")
