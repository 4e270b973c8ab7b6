"""SPDY/3.1 for the server's side of a connection, without I/O.

Kubernetes clients speak it after an HTTP upgrade: SPDY protocol draft 3 and the per-session window
of draft 3.1. Only what such a connection needs is here: the client opens streams, the server never
does; there is no push.

    bytes in  -> `receive` -> events
    `send_data`, `reply`, `reset` ... -> `take` -> bytes out

Data frames are handed on in the pieces in which they arrive, so a frame's length costs no memory.

**Flow control.** Windows of 64 KiB exist since SPDY/3, but the usual peer (spdystream, which kubectl,
kubelet and crictl use) neither sends WINDOW_UPDATE nor waits for it: holding back after 64 KiB
would stall it for ever. So a peer's windows count once it has shown that it knows them, by SETTINGS
or WINDOW_UPDATE. The other way round every byte taken from a stream is credited, which peers that
ignore windows ignore, too; against those the reader's own limit is what bounds memory.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from noded.wire.spdy_headers import HeaderDecoder, HeaderEncoder, HeaderError

VERSION = 3
INITIAL_WINDOW_BYTES = 64 * 1024
CONTROL_LIMIT_BYTES = 64 * 1024  # of one control frame
DATA_LIMIT_BYTES = (1 << 24) - 1  # what a frame's length field can say
STREAM_LIMIT = 2048  # streams open at once
_WINDOW_LIMIT = 0x7FFFFFFF
_ID_MASK = 0x7FFFFFFF
_CREDIT_BYTES = INITIAL_WINDOW_BYTES // 2  # credit is given in pieces of this size
_SETTINGS_INITIAL_WINDOW = 7
_FLAG_FIN = 0x01
_FLAG_UNIDIRECTIONAL = 0x02
_HEAD = struct.Struct(">II")
_PAIR = struct.Struct(">II")


class Frame(IntEnum):
    """Types of control frames."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class Status(IntEnum):
    """Status codes of RST_STREAM."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    FRAME_TOO_LARGE = 11


class SpdyError(ValueError):
    """The peer broke the protocol in a way that ends the connection."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; answer with `reply` or `reset`. `fin`: it will send nothing on it."""

    stream_id: int
    headers: Mapping[str, str]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes of a stream; report them with `consumed` once they are dealt with."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer sends no more on this stream."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The peer gave the stream up, both ways."""

    stream_id: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """More may be sent on this stream, on all with id 0."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The peer will open no more streams."""


Event = StreamOpened | DataReceived | StreamEnded | StreamReset | WindowOpened | GoAway


class _Stream:
    __slots__ = ("credit", "local_done", "remote_done", "replied", "window")

    def __init__(self, window: int) -> None:
        self.window = window
        self.credit = 0  # received and consumed, not yet credited to the peer
        self.remote_done = False
        self.local_done = False
        self.replied = False


class SpdyConnection:
    """The server's side of one connection."""

    def __init__(self) -> None:
        self._encoder = HeaderEncoder()
        self._decoder = HeaderDecoder()
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._streams: dict[int, _Stream] = {}
        self._last_id = 0
        self._data_id = 0  # stream of the data frame that is being received
        self._data_left = 0
        self._data_fin = False
        self._windows_count = False  # whether the peer takes part in flow control
        self._initial_window = INITIAL_WINDOW_BYTES
        self._session_window = INITIAL_WINDOW_BYTES
        self._session_credit = 0
        self._failed = False

    # receiving

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, however they are cut.

        Raises: SpdyError; the connection is then unusable. `take` has a GOAWAY to send.
        """
        if self._failed:
            raise SpdyError("the connection has failed")
        self._buffer += data
        events: list[Event] = []
        try:
            while self._step(events):
                pass
        except (SpdyError, HeaderError) as error:
            self._failed = True
            self._buffer.clear()
            self.go_away(protocol_error=True)
            raise SpdyError(str(error)) from None
        return events

    def _step(self, events: list[Event]) -> bool:
        if self._data_id:
            return self._data_part(events)
        if len(self._buffer) < _HEAD.size:
            return False
        first, second = _HEAD.unpack_from(self._buffer)
        flags, length = second >> 24, second & 0xFFFFFF
        if not first & 0x80000000:
            del self._buffer[: _HEAD.size]
            if first == 0:
                raise SpdyError("a data frame without a stream")
            self._data_id, self._data_left, self._data_fin = first, length, bool(flags & _FLAG_FIN)
            return True
        if length > CONTROL_LIMIT_BYTES:
            raise SpdyError(f"a control frame of {length} bytes, at most {CONTROL_LIMIT_BYTES} are allowed")
        if len(self._buffer) < _HEAD.size + length:
            return False
        body = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
        del self._buffer[: _HEAD.size + length]
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != VERSION:
            raise SpdyError(f"SPDY version {version}, only {VERSION} is spoken here")
        self._control(kind, flags, body, events)
        return True

    def _data_part(self, events: list[Event]) -> bool:
        part = bytes(self._buffer[: self._data_left])
        if not part and self._data_left:
            return False
        del self._buffer[: len(part)]
        self._data_left -= len(part)
        stream_id, stream = self._data_id, self._streams.get(self._data_id)
        if part:
            if stream is not None and not stream.remote_done:
                events.append(DataReceived(stream_id, part))
            else:  # of a stream that we gave up: it may have been on its way
                self._credit_session(len(part))
        if not self._data_left:
            self._data_id = 0
            if self._data_fin:
                self._remote_end(stream_id, stream, events)
        return True

    def _control(self, kind: int, flags: int, body: bytes, events: list[Event]) -> None:
        if kind == Frame.SYN_STREAM:
            self._syn_stream(flags, body, events)
        elif kind == Frame.SYN_REPLY:
            stream_id, _ = _pair(body + bytes(4), "SYN_REPLY")
            self._decoder.decode(body[4:])
            self._queue_reset(stream_id & _ID_MASK, Status.INVALID_STREAM)  # we never open streams
        elif kind == Frame.RST_STREAM:
            stream_id, status = _pair(body, "RST_STREAM")
            if self._streams.pop(stream_id & _ID_MASK, None) is not None:
                events.append(StreamReset(stream_id & _ID_MASK, status))
        elif kind == Frame.SETTINGS:
            self._settings(body, events)
        elif kind == Frame.PING:
            self._ping(body)
        elif kind == Frame.GOAWAY:
            events.append(GoAway())
        elif kind == Frame.HEADERS:
            stream_id, _ = _pair(body + bytes(4), "HEADERS")
            self._decoder.decode(body[4:])
            if flags & _FLAG_FIN:
                stream_id &= _ID_MASK
                self._remote_end(stream_id, self._streams.get(stream_id), events)
        elif kind == Frame.WINDOW_UPDATE:
            self._window_update(body, events)
        # Others must be ignored (section 2.2.1).

    def _syn_stream(self, flags: int, body: bytes, events: list[Event]) -> None:
        if len(body) < 10:
            raise SpdyError("a SYN_STREAM frame is too short")
        stream_id = _HEAD.unpack_from(body)[0] & _ID_MASK
        headers = self._decoder.decode(body[10:])
        if stream_id % 2 == 0 or stream_id <= self._last_id:
            raise SpdyError(f"stream id {stream_id} is even or not greater than the one before")
        self._last_id = stream_id
        if len(self._streams) >= STREAM_LIMIT:
            self._queue_reset(stream_id, Status.REFUSED_STREAM)
            return
        stream = _Stream(self._initial_window)
        stream.remote_done = bool(flags & _FLAG_FIN)
        stream.local_done = bool(flags & _FLAG_UNIDIRECTIONAL)
        self._streams[stream_id] = stream
        events.append(StreamOpened(stream_id, headers, stream.remote_done))
        self._forget_if_done(stream_id, stream)

    def _settings(self, body: bytes, events: list[Event]) -> None:
        if len(body) < 4 or (len(body) - 4) % 8 or (len(body) - 4) // 8 != int.from_bytes(body[:4], "big"):
            raise SpdyError("a SETTINGS frame has a wrong length")
        self._windows_count = True
        for at in range(4, len(body), 8):
            key, value = _PAIR.unpack_from(body, at)
            if key & 0xFFFFFF == _SETTINGS_INITIAL_WINDOW:
                if value > _WINDOW_LIMIT:
                    raise SpdyError(f"an initial window of {value} bytes")
                for stream in self._streams.values():
                    stream.window += value - self._initial_window
                self._initial_window = value
                events.append(WindowOpened(0))

    def _ping(self, body: bytes) -> None:
        if len(body) != 4:
            raise SpdyError("a PING frame has a wrong length")
        if int.from_bytes(body, "big") % 2:  # odd: the client asks; even: an answer to a ping of ours
            self._frame(Frame.PING, body)

    def _window_update(self, body: bytes, events: list[Event]) -> None:
        stream_id, delta = _pair(body, "WINDOW_UPDATE")
        stream_id, delta = stream_id & _ID_MASK, delta & _ID_MASK
        self._windows_count = True
        if stream_id == 0:
            self._session_window += delta
            if self._session_window > _WINDOW_LIMIT:
                raise SpdyError("the window of the session overflows")
        else:
            stream = self._streams.get(stream_id)
            if stream is None:
                return
            stream.window += delta
            if stream.window > _WINDOW_LIMIT:
                self.reset(stream_id, Status.FLOW_CONTROL_ERROR)
                events.append(StreamReset(stream_id, Status.FLOW_CONTROL_ERROR))
                return
        events.append(WindowOpened(stream_id))

    def _remote_end(self, stream_id: int, stream: _Stream | None, events: list[Event]) -> None:
        if stream is not None and not stream.remote_done:
            stream.remote_done = True
            events.append(StreamEnded(stream_id))
            self._forget_if_done(stream_id, stream)

    # sending

    def take(self) -> list[bytes]:
        """What is to be sent now, in order; the caller sends all of it."""
        out, self._out = self._out, []
        return out

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def reply(self, stream_id: int, headers: Mapping[str, str] | None = None) -> None:
        """Accept a stream. A stream that is gone meanwhile is ignored."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.replied:
            stream.replied = True
            self._frame(Frame.SYN_REPLY, stream_id.to_bytes(4, "big") + self._encoder.encode(headers or {}))

    def sendable(self, stream_id: int) -> int:
        """How many bytes may be sent on a stream now; 0 = wait for WindowOpened, -1 = it is closed."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_done:
            return -1
        if not self._windows_count:
            return DATA_LIMIT_BYTES
        return max(0, min(stream.window, self._session_window, DATA_LIMIT_BYTES))

    def send_data(self, stream_id: int, data: bytes | memoryview, *, fin: bool = False) -> None:
        """Send at most `sendable` bytes, and the end of the stream with `fin`.

        On a stream that is closed nothing happens. Raises: ValueError for more than may be sent.
        """
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_done:
            return
        if len(data) > self.sendable(stream_id):
            raise ValueError(f"{len(data)} bytes for stream {stream_id} exceed its window")
        stream.window -= len(data)
        self._session_window -= len(data)
        self._out.append(_HEAD.pack(stream_id, (_FLAG_FIN if fin else 0) << 24 | len(data)))
        if data:
            self._out.append(bytes(data))
        if fin:
            stream.local_done = True
            self._forget_if_done(stream_id, stream)

    def consumed(self, stream_id: int, count: int) -> None:
        """Credit the peer for `count` received bytes that need no more memory here."""
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.remote_done:
            stream.credit += count
            if stream.credit >= _CREDIT_BYTES:
                self._frame(Frame.WINDOW_UPDATE, _PAIR.pack(stream_id, stream.credit))
                stream.credit = 0
        self._credit_session(count)

    def reset(self, stream_id: int, status: Status) -> None:
        """Give a stream up, both ways. Idempotent."""
        if self._streams.pop(stream_id, None) is not None:
            self._queue_reset(stream_id, status)

    def go_away(self, *, protocol_error: bool = False) -> None:
        """Say that no more streams are accepted."""
        self._frame(Frame.GOAWAY, _PAIR.pack(self._last_id, 1 if protocol_error else 0))

    def _credit_session(self, count: int) -> None:
        self._session_credit += count
        if self._session_credit >= _CREDIT_BYTES:
            self._frame(Frame.WINDOW_UPDATE, _PAIR.pack(0, self._session_credit))
            self._session_credit = 0

    def _queue_reset(self, stream_id: int, status: Status) -> None:
        self._frame(Frame.RST_STREAM, _PAIR.pack(stream_id, status))

    def _frame(self, kind: Frame, body: bytes) -> None:
        self._out.append(_HEAD.pack(0x80000000 | VERSION << 16 | kind, len(body)) + body)

    def _forget_if_done(self, stream_id: int, stream: _Stream) -> None:
        if stream.remote_done and stream.local_done:
            self._streams.pop(stream_id, None)


def _pair(body: bytes, name: str) -> tuple[int, int]:
    if len(body) < 8:
        raise SpdyError(f"a {name} frame is too short")
    first, second = _PAIR.unpack_from(body)
    return first, second
