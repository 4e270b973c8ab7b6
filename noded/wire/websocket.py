"""WebSocket for either side of a connection, without I/O (RFC 6455).

Messages are handed on in the pieces in which they arrive, so neither a message's nor a frame's
length costs memory. No extensions are negotiated.
"""

from __future__ import annotations

import base64
import codecs
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTROL_LIMIT_BYTES = 125  # section 5.5
_LENGTH_LIMIT_BYTES = 1 << 63


class Opcode(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Section 7.4.1."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011


class WebSocketError(ValueError):
    """The peer broke the protocol; `take` has the close frame to answer with."""

    def __init__(self, message: str, code: CloseCode = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a message, perhaps empty. `first` and `last` mark the message's ends."""

    data: bytes
    text: bool
    first: bool
    last: bool


@dataclass(frozen=True, slots=True)
class Closed:
    """The peer closes the connection; the answer is queued already."""

    code: int
    reason: str = ""


Event = Piece | Closed


def accept_key(key: str) -> str:
    """`Sec-WebSocket-Accept` for a `Sec-WebSocket-Key` (section 4.2.2).

    Raises: ValueError when the key is not 16 bytes in base64.
    """
    try:
        nonce = base64.b64decode(key, validate=True)
    except ValueError:  # binascii.Error, too, is one
        raise ValueError("Sec-WebSocket-Key is not base64") from None
    if len(nonce) != 16:
        raise ValueError("Sec-WebSocket-Key is not 16 bytes long")
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


def mask(data: bytes, key: bytes, offset: int = 0) -> bytes:
    """Apply a 4-byte masking key to bytes that start at `offset` of the payload (section 5.3)."""
    if not data:
        return b""
    turn = offset % 4
    pattern = (key[turn:] + key[:turn]) * (len(data) // 4 + 1)
    length = len(data)
    # One operation on big integers: a loop over bytes is a hundred times slower.
    mixed = int.from_bytes(data, "little") ^ int.from_bytes(pattern[:length], "little")
    return mixed.to_bytes(length, "little")


class WebSocket:
    """One side of a connection, after the handshake.

    Args:
        masking_key: for a client: gives 4 fresh random bytes for each frame (section 5.3); None = a server.
    """

    def __init__(self, masking_key: Callable[[], bytes] | None = None) -> None:
        self._masking_key = masking_key
        self._buffer = bytearray()
        self._out: list[bytes] = []
        self._left = -1  # bytes of the current frame that are to come, -1 = between frames
        self._key = b""
        self._offset = 0
        self._final = False
        self._opcode = Opcode.CONTINUATION
        self._in_message = False
        self._first = True
        self._text = False
        self._utf8 = codecs.getincrementaldecoder("utf-8")()
        self._close_sent = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the peer has sent its close frame, or has failed."""
        return self._closed

    # receiving

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes from the peer, however they are cut. Bytes behind a close frame are dropped.

        Raises: WebSocketError; the connection is then unusable.
        """
        if self._closed:
            return []
        self._buffer += data
        events: list[Event] = []
        try:
            while not self._closed and self._step(events):
                pass
        except WebSocketError as error:
            self._closed = True
            self._buffer.clear()
            self.close(error.code, str(error))
            raise
        return events

    def _step(self, events: list[Event]) -> bool:
        if self._left < 0 and not self._head():
            return False
        if self._opcode >= Opcode.CLOSE:
            if len(self._buffer) < self._left:
                return False
            payload = self._unmasked(bytes(self._buffer[: self._left]), 0)
            del self._buffer[: self._left]
            self._left = -1
            self._control(payload, events)
            return True
        return self._data(events)

    def _head(self) -> bool:
        """Read the head of a frame; False when it is not complete."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        short = buffer[1] & 0x7F
        extra = {126: 2, 127: 8}.get(short, 0)
        key = 4 if self._masking_key is None else 0
        if len(buffer) < 2 + extra + key:
            self._check_head(buffer[0], buffer[1])
            return False
        opcode = self._check_head(buffer[0], buffer[1])
        length = int.from_bytes(buffer[2 : 2 + extra], "big") if extra else short
        if length >= _LENGTH_LIMIT_BYTES or (extra and length < (126 if extra == 2 else 65536)):
            raise WebSocketError(f"a frame length of {length} bytes is not written as it must be")
        self._final = bool(buffer[0] & 0x80)
        self._key = bytes(buffer[2 + extra : 2 + extra + key])
        self._left, self._offset, self._opcode = length, 0, opcode
        del buffer[: 2 + extra + key]
        if opcode in (Opcode.TEXT, Opcode.BINARY):
            self._in_message, self._first, self._text = True, True, opcode is Opcode.TEXT
            self._utf8.reset()
        return True

    def _check_head(self, first: int, second: int) -> Opcode:
        if first & 0x70:
            raise WebSocketError("reserved bits are set, but no extension was agreed on")
        if bool(second & 0x80) != (self._masking_key is None):
            raise WebSocketError("a client's frame is not masked, or a server's is")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise WebSocketError(f"unknown opcode {first & 0x0F}") from None
        if opcode >= Opcode.CLOSE:
            if not first & 0x80 or second & 0x7F > _CONTROL_LIMIT_BYTES:
                raise WebSocketError("a control frame is fragmented or too long")
        elif (opcode is Opcode.CONTINUATION) != self._in_message:
            raise WebSocketError("a message begins inside another, or goes on without a beginning")
        return opcode

    def _unmasked(self, data: bytes, offset: int) -> bytes:
        return mask(data, self._key, offset) if self._key else data

    def _data(self, events: list[Event]) -> bool:
        part = bytes(self._buffer[: self._left])
        if not part and self._left:
            return False
        del self._buffer[: len(part)]
        part = self._unmasked(part, self._offset)
        self._offset += len(part)
        self._left -= len(part)
        last = self._final and not self._left
        if self._text:
            self._check_text(part, last)
        if part or self._first or last:
            events.append(Piece(part, self._text, self._first, last))
            self._first = False
        if not self._left:
            self._left = -1
            self._in_message = not last
        return True

    def _check_text(self, part: bytes, last: bool) -> None:
        try:
            self._utf8.decode(part, last)
        except UnicodeDecodeError:
            raise WebSocketError("a text message is not UTF-8", CloseCode.INVALID_DATA) from None

    def _control(self, payload: bytes, events: list[Event]) -> None:
        if self._opcode is Opcode.PING:
            if not self._close_sent:
                self._frame(Opcode.PONG, payload)
        elif self._opcode is Opcode.CLOSE:
            code, reason = _close_reason(payload)
            self._closed = True
            self._buffer.clear()
            if not self._close_sent:
                self._close_sent = True
                self._frame(Opcode.CLOSE, payload[:2])
            events.append(Closed(code, reason))

    # sending

    def take(self) -> list[bytes]:
        """What is to be sent now, in order; the caller sends all of it."""
        out, self._out = self._out, []
        return out

    def send(self, *parts: bytes, text: bool = False) -> None:
        """Send one message, of `parts` joined. After `close` nothing is sent."""
        if not self._close_sent:
            self._frame(Opcode.TEXT if text else Opcode.BINARY, *parts)

    def close(self, code: CloseCode = CloseCode.NORMAL, reason: str = "") -> None:
        """Send a close frame. Idempotent. `reason` is cut to what fits."""
        if self._close_sent:
            return
        text = reason.encode()[: _CONTROL_LIMIT_BYTES - 2].decode("utf-8", "ignore").encode()
        self._frame(Opcode.CLOSE, int(code).to_bytes(2, "big"), text)
        self._close_sent = True

    def _frame(self, opcode: Opcode, *parts: bytes) -> None:
        length = sum(map(len, parts))
        masked = 0 if self._masking_key is None else 0x80
        head = bytearray([0x80 | opcode])
        if length < 126:
            head.append(masked | length)
        elif length < 65536:
            head += bytes([masked | 126]) + length.to_bytes(2, "big")
        else:
            head += bytes([masked | 127]) + length.to_bytes(8, "big")
        if self._masking_key is not None:
            key = self._masking_key()
            head += key
            parts = (mask(b"".join(parts), key),)
        self._out.append(bytes(head))
        self._out.extend(part for part in parts if part)


def _close_reason(payload: bytes) -> tuple[int, str]:
    if not payload:
        return CloseCode.NO_STATUS, ""
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (1000 <= code <= 1014 or 3000 <= code <= 4999) or code in (1004, 1005, 1006):
        raise WebSocketError("a close frame has no valid code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError("the reason of a close frame is not UTF-8", CloseCode.INVALID_DATA) from None
