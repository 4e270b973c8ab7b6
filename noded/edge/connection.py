"""One client connection: HTTP/2 by grpclib, calls by us."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from grpclib.config import Configuration
from grpclib.protocol import AbstractHandler, H2Protocol
from grpclib.protocol import Stream as H2Stream
from h2.config import H2Configuration
from h2.events import UnknownFrameReceived
from h2.exceptions import H2Error
from h2.settings import SettingCodes
from h2.utilities import SizeLimitDict

if TYPE_CHECKING:
    from noded.edge.call import Headers

# kubelet keeps one connection for all runtime calls; RunPodSandbox of a whole node may wait for a
# slow CNI at once, and lists must still get through. h2's default is 100.
_CONCURRENT_CALLS = 1000

# h2 keeps a record of some 250 bytes of each of the last 65,536 streams, to tell what late frames mean: 17 MB
# for kubelet's one connection. Late are only frames of calls that were just in progress.
_CLOSED_STREAMS = 2 * _CONCURRENT_CALLS

# Requests are read at once, so windows only bound what a client may send unasked.
_CONFIGURATION = Configuration(
    http2_connection_window_size=4 * 2**20, http2_stream_window_size=2**20
).__for_server__()

_H2_CONFIGURATION = H2Configuration(
    client_side=False,
    header_encoding="latin-1",  # decodes any bytes; no header that we read may hold more than ASCII
    validate_inbound_headers=False,
    validate_outbound_headers=False,
    normalize_inbound_headers=False,
    normalize_outbound_headers=False,
)


class AnyCall(Protocol):
    """One RPC in progress: `noded.edge.call.Call`, or one that waits to become one."""

    @property
    def streaming(self) -> bool: ...

    def start(self) -> asyncio.Task[None]: ...

    def cancel(self) -> None: ...

    def end(self) -> None: ...


class Calls(AbstractHandler):
    """The calls of one connection, as grpclib reports them."""

    def __init__(self, open_call: Callable[[H2Stream, Headers], AnyCall]) -> None:
        self._open_call = open_call
        self._calls: dict[H2Stream, tuple[AnyCall, asyncio.Task[None]]] = {}

    def accept(self, stream: H2Stream, headers: Headers, release_stream: Callable[[], None]) -> None:
        call = self._open_call(stream, headers)
        task = call.start()
        self._calls[stream] = call, task

        def done(task: asyncio.Task[None]) -> None:
            # In a callback, because a task that is cancelled before its first step runs no `finally`.
            del self._calls[stream]
            with suppress(H2Error):
                release_stream()

        task.add_done_callback(done)

    def cancel(self, stream: H2Stream) -> None:
        """The client reset the stream."""
        if stream in self._calls:
            self._calls[stream][0].cancel()

    def close(self) -> None:
        """The connection is lost."""
        for call, _ in self._calls.values():
            call.cancel()

    def running(self) -> list[tuple[AnyCall, asyncio.Task[None]]]:
        """The calls in progress, with their tasks."""
        return list(self._calls.values())


class Connection(H2Protocol):
    """The asyncio protocol of one connection."""

    def __init__(
        self,
        open_call: Callable[[H2Stream, Headers], AnyCall],
        opened: Callable[[Connection], None],
        lost: Callable[[Connection], None],
    ) -> None:
        self.calls = Calls(open_call)
        super().__init__(self.calls, _CONFIGURATION, _H2_CONFIGURATION)
        self._opened = opened
        self._lost = lost
        self._transport: asyncio.WriteTransport | None = None
        self.closed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._h2._closed_streams = SizeLimitDict(size_limit=_CLOSED_STREAMS)
        self._h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: _CONCURRENT_CALLS})
        self.connection.flush()
        # RFC 9113 5.5: unknown frames must be ignored; grpclib raises for events it does not list.
        processors: dict[Any, Any] = self.processor.processors
        processors.setdefault(UnknownFrameReceived, lambda _: None)
        self._opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.closed.set()
        self._lost(self)

    def goodbye(self) -> None:
        """Tell the client that no more calls are served here, and close once all is written."""
        with suppress(H2Error):
            self._h2.close_connection()
            self.connection.flush()
        self.processor.close("the server shuts down")

    def abort(self) -> None:
        """Close without writing what is left."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def _h2(self) -> Any:
        return self.connection._connection
