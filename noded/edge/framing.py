"""gRPC over one HTTP/2 stream: the length-prefixed request, the answer and its trailers.

See github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. grpclib's own `Stream` has no limit on
the size of a message and no content-type on early errors, so the edge frames by itself.
"""

from __future__ import annotations

import struct
from contextlib import suppress

from grpclib.const import Status
from grpclib.metadata import encode_grpc_message
from grpclib.protocol import Stream as H2Stream
from h2.errors import ErrorCodes
from h2.exceptions import H2Error

from noded.errors import InvalidArgument, ResourceExhausted, Unimplemented

_PREFIX = struct.Struct(">?I")
_INITIAL_HEADERS = [(":status", "200"), ("content-type", "application/grpc+proto")]


async def read_message(stream: H2Stream, limit_bytes: int) -> bytes:
    """Read the one request message.

    Raises: ResourceExhausted beyond `limit_bytes`, before the body is read; Unimplemented for a
        compressed message; InvalidArgument when the stream ends too early.
    """
    prefix = await _read(stream, _PREFIX.size)
    compressed, length = _PREFIX.unpack(prefix)
    if compressed:
        raise Unimplemented("the request is compressed: send it with grpc-encoding identity")
    if length > limit_bytes:
        raise ResourceExhausted(f"the request has {length} bytes: at most {limit_bytes} are accepted")
    return await _read(stream, length)


async def _read(stream: H2Stream, size: int) -> bytes:
    try:
        data = await stream.recv_data(size)
    except AssertionError:  # grpclib's word for a stream that ended inside
        data = b""
    if len(data) != size:
        raise InvalidArgument("the stream ended before the request message was complete")
    return data


class Answer:
    """The sending half of one call."""

    def __init__(self, stream: H2Stream, limit_bytes: int) -> None:
        self._stream = stream
        self._limit_bytes = limit_bytes
        self._headers_sent = False
        self._sending = False

    @property
    def open(self) -> bool:
        """Whether the client can still receive anything."""
        return self._stream.closable

    async def begin(self) -> None:
        """Send the headers now: whoever waits for them knows that a stream has begun.

        Raises: h2.exceptions.H2Error when the client is gone.
        """
        if not self._headers_sent:
            await self._stream.send_headers(_INITIAL_HEADERS)
            self._headers_sent = True

    async def send(self, message: bytes) -> None:
        """Send one message; waits for the client's flow control.

        Raises: ResourceExhausted when it is larger than clients accept; h2.exceptions.H2Error
            when the client is gone.
        """
        if len(message) > self._limit_bytes:
            raise ResourceExhausted(
                f"the answer has {len(message)} bytes, clients accept at most {self._limit_bytes}: "
                "use a filter, or the Stream variant of a list"
            )
        await self.begin()
        self._sending = True
        await self._stream.send_data(_PREFIX.pack(False, len(message)) + message)
        self._sending = False

    async def finish(self, status: Status, message: str = "") -> None:
        """Send the trailers, with the headers if nothing was sent so far; then the stream is over.

        After a `send` that was cancelled halfway the stream is reset: trailers behind half a
        message would be a protocol error.

        Raises: h2.exceptions.H2Error when the client is gone.
        """
        if self._sending:
            self._stream.reset_nowait(ErrorCodes.CANCEL)
            return
        headers = [] if self._headers_sent else list(_INITIAL_HEADERS)
        headers.append(("grpc-status", str(status.value)))
        if message:
            headers.append(("grpc-message", encode_grpc_message(message)))
        await self._stream.send_headers(headers, end_stream=True)
        if self._stream.closable:  # the client has not ended its half: tell it to stop sending
            self._stream.reset_nowait()

    def abandon(self) -> None:
        """Reset the stream if it is still open, so that no client waits for an answer for ever."""
        if self._stream.closable:
            with suppress(H2Error):
                self._stream.reset_nowait(ErrorCodes.INTERNAL_ERROR)

    async def refuse(self, http_status: int) -> None:
        """Answer what is not gRPC at all with a bare HTTP status."""
        await self._stream.send_headers([(":status", str(http_status))], end_stream=True)
        if self._stream.closable:
            self._stream.reset_nowait()
