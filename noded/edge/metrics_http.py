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

from noded.edge.http_get import REQUEST_BYTES, HttpGet, Reply
from noded.engine.metrics import CONTENT_TYPE
from noded.errors import InvalidArgument, Unavailable

log = structlog.get_logger(__name__)

_LAG_PERIOD_SECONDS = 1.0


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
        self._http = HttpGet("metrics", self._reply)

    async def start(self) -> None:
        """Listen. Raises: InvalidArgument naming metrics.listen; Unavailable when it is taken."""
        if not self._listen:
            return
        host, port, path = parse_listen(self._listen)
        try:
            if path:
                with suppress(FileNotFoundError):
                    os.unlink(path)
                self._server = await asyncio.start_unix_server(self._http.accept, path, limit=REQUEST_BYTES)
                os.chmod(path, 0o600)
            else:
                self._server = await asyncio.start_server(self._http.accept, host, port, limit=REQUEST_BYTES)
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
        if self._server is not None:
            path = self._server.sockets[0].getsockname() if self._server.sockets else ""
            self._server.close()
            if isinstance(path, str) and path:
                with suppress(FileNotFoundError):
                    os.unlink(path)
        await self._http.close()
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.gather(self._clock, return_exceptions=True)
        self._server = self._clock = None

    async def _measure_lag(self) -> None:
        while True:
            due = time.monotonic() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self._lag(time.monotonic() - due)

    def _reply(self, path: str) -> Reply:
        if path != "/metrics":
            return Reply(404, "metrics are at /metrics\n")
        return Reply(200, self._text(), CONTENT_TYPE)


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
