"""ttrpc in both directions over the one socket of a plugin.

noded calls the plugin's service, the plugin calls noded's; the multiplexer keeps them apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import outcome
import structlog
import trio

from noded.wire.nri_mux import PLUGIN_CONNECTION, RUNTIME_CONNECTION, MuxReader, encode
from noded.wire.ttrpc import MAX_DATA_BYTES, Code, Frame, FrameReader, FrameType, Request, Response, Status

log = structlog.get_logger(__name__)

_READ_BYTES: Final = 65536
_QUEUED_FRAMES: Final = 16
_CALLS_SERVED_AT_ONCE: Final = 16
_FINISH_SECONDS: Final = 1.0
_STREAM_IDS: Final = 1 << 31


class Lost(Exception):
    """The plugin is gone, does not speak the protocol, or did not answer in time."""


class Refused(Exception):
    """The plugin answered with an error, or noded answers a plugin's call with one."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


Serve = Callable[[str, str, bytes], Awaitable[bytes]]  # service, method, request -> reply; raises Refused


class Connection:
    """One plugin's socket.

    Args:
        serve: answers the plugin's calls.
    """

    def __init__(self, stream: trio.SocketStream, serve: Serve) -> None:
        self._stream = stream
        self._serve = serve
        self._scope = trio.CancelScope()
        self._out, self._queue = trio.open_memory_channel[bytes](_QUEUED_FRAMES)
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._serving = 0
        self._written = trio.Event()
        self._why = ""

    @property
    def closed(self) -> bool:
        return bool(self._why)

    async def run(self) -> str:
        """Carry frames until the connection ends; return why it did. Closes the socket."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    await self._read(nursery)
                    nursery.cancel_scope.cancel()
        finally:
            self.close("noded is stopping")
            await trio.aclose_forcefully(self._stream)
        return self._why

    def close(self, why: str) -> None:
        """End the connection and with it every call. Idempotent: the first reason stands."""
        self._why = self._why or why
        self._scope.cancel()
        for call in self._calls.values():
            call.finish(outcome.Error(Lost(self._why)))
        self._calls.clear()

    async def finish(self, why: str) -> None:
        """As `close`, after what is queued has been sent, if the plugin takes it soon."""
        self._out.close()
        with trio.move_on_after(_FINISH_SECONDS):
            await self._written.wait()
        self.close(why)

    async def call(self, service: str, method: str, payload: bytes, timeout_seconds: float) -> bytes:
        """Call the plugin.

        Raises: Refused with its error; Lost when it is gone or late; ValueError when `payload` is
            larger than the protocol allows.
        Cancellation: safe; an answer that comes later is dropped.
        """
        if self._why:
            raise Lost(self._why)
        request = Request(service, method, payload, int(timeout_seconds * 1_000_000_000))
        stream_id, self._next_stream = self._next_stream, (self._next_stream + 2) % _STREAM_IDS
        frame = Frame(stream_id, FrameType.REQUEST, request.encode()).encode()
        call = self._calls[stream_id] = _Call()
        try:
            with trio.move_on_after(timeout_seconds):
                await self._send(PLUGIN_CONNECTION, frame)
                await call.done.wait()
        finally:
            self._calls.pop(stream_id, None)
        if call.result is None:
            raise Lost(f"it did not answer {method} within {timeout_seconds:g} s")
        return call.result.unwrap()

    async def _send(self, connection_id: int, frame: bytes) -> None:
        try:
            await self._out.send(encode(connection_id, frame))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Lost(self._why or "its connection is closed") from None

    async def _write(self) -> None:
        with self._queue:
            async for data in self._queue:
                try:
                    await self._stream.send_all(data)
                except trio.BrokenResourceError:
                    self.close("it closed the connection")
                    return
        self._written.set()

    async def _read(self, nursery: trio.Nursery) -> None:
        mux = MuxReader()
        readers = {PLUGIN_CONNECTION: FrameReader(), RUNTIME_CONNECTION: FrameReader()}
        while True:
            try:
                data = await self._stream.receive_some(_READ_BYTES)
            except trio.BrokenResourceError:
                data = b""
            if not data:
                self.close("it closed the connection")
                return
            try:
                for connection_id, piece in mux.feed(data):
                    reader = readers.get(connection_id)
                    if reader is None:  # reserved, or of a service that noded does not have
                        continue
                    for frame in reader.feed(piece):
                        self._take(connection_id, frame, nursery)
            except ValueError as error:
                self.close(f"it does not speak the protocol: {error}")
                return

    def _take(self, connection_id: int, frame: Frame, nursery: trio.Nursery) -> None:
        """Raises: ValueError for what is not ttrpc."""
        if connection_id == PLUGIN_CONNECTION:
            if frame.type != FrameType.RESPONSE:
                raise ValueError(f"a frame of type {frame.type} where answers are expected")
            response = Response.decode(frame.data)
            call = self._calls.get(frame.stream_id)
            if call is not None:
                call.finish(_result(response))
            return
        if frame.type != FrameType.REQUEST:
            raise ValueError(f"a frame of type {frame.type} where calls are expected")
        request = Request.decode(frame.data)
        if self._serving >= _CALLS_SERVED_AT_ONCE:
            raise ValueError(f"more than {_CALLS_SERVED_AT_ONCE} calls at once")
        self._serving += 1
        nursery.start_soon(self._answer, frame.stream_id, request)

    async def _answer(self, stream_id: int, request: Request) -> None:
        try:
            response = Response(
                None, await self._serve(request.service, request.method, request.payload)
            ).encode()
            if len(response) > MAX_DATA_BYTES:
                raise Refused(Code.RESOURCE_EXHAUSTED, "the answer is too large")
        except Refused as error:
            response = Response(Status(error.code, str(error))).encode()
        except Exception as error:
            log.exception("a call of an NRI plugin failed", method=request.method)
            response = Response(Status(Code.INTERNAL, str(error))).encode()
        finally:
            self._serving -= 1
        try:
            await self._send(RUNTIME_CONNECTION, Frame(stream_id, FrameType.RESPONSE, response).encode())
        except Lost:
            return


class _Call:
    """One call that waits for its answer."""

    def __init__(self) -> None:
        self.done = trio.Event()
        self.result: outcome.Outcome[bytes] | None = None

    def finish(self, result: outcome.Outcome[bytes]) -> None:
        if self.result is None:
            self.result = result
            self.done.set()


def _result(response: Response) -> outcome.Outcome[bytes]:
    status = response.status
    if status is not None and status.code != Code.OK:
        return outcome.Error(Refused(status.code, status.message))
    return outcome.Value(response.payload)
