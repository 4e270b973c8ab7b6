"""The least of HTTP/1.1 that a scraper needs: GET of a path, one request per connection.

For clients inside the node's trust boundary: no TLS, no login.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

REQUEST_BYTES = 8192  # of a request's head; the limit of the stream reader
_REQUEST_SECONDS = 10.0
_MOST_CLIENTS = 16
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 503: "Busy"}


@dataclass(frozen=True, slots=True)
class Reply:
    """What a path has to say."""

    status: int
    text: str
    kind: str = "text/plain; charset=utf-8"


class HttpGet:
    """Connections that are answered by `answer(path)`; the path is without query, and may be anything.

    Args:
        most_clients: connections at once; more are told that the server is busy.
    """

    def __init__(self, name: str, answer: Callable[[str], Reply], most_clients: int = _MOST_CLIENTS) -> None:
        self._name = name
        self._answer_path = answer
        self._most_clients = most_clients
        self._clients: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The callback of `asyncio.start_server`."""
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name=self._name)
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)

    async def close(self) -> None:
        """End all connections. Idempotent."""
        tasks = [*self._clients]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                busy = len(self._clients) > self._most_clients
                writer.write(_response(_BUSY) if busy else await self._answer(reader))
                await writer.drain()
        except (OSError, TimeoutError):  # a client that is slow or gone
            writer.transport.abort()
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return _response(_NO_HTTP)
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(_NO_HTTP)
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return _response(Reply(405, "use GET\n"))
        path = target.split(b"?", 1)[0].decode("latin-1")
        return _response(self._answer_path(path), body=method == b"GET")


_BUSY = Reply(503, "too many clients\n")
_NO_HTTP = Reply(400, "not an HTTP request\n")


def _response(reply: Reply, *, body: bool = True) -> bytes:
    data = reply.text.encode()
    head = (
        f"HTTP/1.1 {reply.status} {_REASONS[reply.status]}\r\nContent-Type: {reply.kind}\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (data if body else b"")
