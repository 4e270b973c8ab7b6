"""Kubernetes' channel protocols: how exec, attach and port-forward share one connection.

Over SPDY each channel is a stream, named by its headers. Over WebSocket each message begins with
the number of its channel: a byte, or a digit before base64 text. The names of protocols stand in
`X-Stream-Protocol-Version` or `Sec-WebSocket-Protocol`:

    channel.k8s.io (v1), v2   an error is plain text
    v3                        adds the resize channel
    v4                        the error channel carries a metav1.Status with the exit code
    v5 (WebSocket only)       adds CLOSE: channel 255 names a channel that ends
    portforward.k8s.io        a pair of streams per connection, error and data
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum

SPDY_UPGRADE = "SPDY/3.1"
PORT_FORWARD = "portforward.k8s.io"
TUNNEL_PREFIX = "SPDY/3.1+"
PORT_FORWARD_TUNNEL = TUNNEL_PREFIX + PORT_FORWARD
V1 = "channel.k8s.io"
SPDY_COMMAND = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", V1)
WEBSOCKET_COMMAND = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    V1,
    "base64.channel.k8s.io",
)
WEBSOCKET_PORT_FORWARD = (PORT_FORWARD_TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io")
CLOSE_CHANNEL = 255

_RESIZE_LIMIT_BYTES = 4096
_SIZE_LIMIT = 65535  # struct winsize has 16 bits
_JSON_SPACE = " \t\r\n"


class Channel(IntEnum):
    """Channels of a command, with their WebSocket numbers."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4


STREAM_TYPES = {channel.name.lower(): channel for channel in Channel}  # SPDY header `streamtype`


class PortStream(StrEnum):
    """SPDY header `streamtype` of a forwarded port."""

    DATA = "data"
    ERROR = "error"


class ChannelError(ValueError):
    """The peer broke the channel protocol."""


def negotiate(offered: Iterable[str], known: Sequence[str]) -> str | None:
    """The first of the client's protocols, in its order, that is known; None without one."""
    return next((name for name in offered if name in known), None)


def has_status(protocol: str) -> bool:
    """Whether the error channel carries a metav1.Status."""
    return protocol.startswith(("v4.", "v5."))


def has_resize(protocol: str) -> bool:
    """Whether there is a resize channel."""
    return protocol.startswith(("v3.", "v4.", "v5."))


def is_base64(protocol: str) -> bool:
    return "base64." in protocol


# the error channel


def exit_status(protocol: str, code: int) -> bytes:
    """What the error channel says when a command has ended."""
    if code == 0:
        return _status({"status": "Success"}) if has_status(protocol) else b""
    message = f"command terminated with non-zero exit code: exit status {code}"
    if not has_status(protocol):
        return message.encode()
    return _status(
        {
            "status": "Failure",
            "message": message,
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
        }
    )


def error_status(protocol: str, message: str) -> bytes:
    """What the error channel says when a command could not be run, or was lost."""
    if not has_status(protocol):
        return message.encode()
    return _status(
        {
            "status": "Failure",
            "message": f"Internal error occurred: {message}",
            "reason": "InternalError",
            "details": {"causes": [{"message": message}]},
            "code": 500,
        }
    )


def _status(fields: dict[str, object]) -> bytes:
    return json.dumps({"metadata": {}, **fields}).encode()


# the resize channel


@dataclass(frozen=True, slots=True)
class TerminalSize:
    """In character cells."""

    width: int
    height: int


class ResizeParser:
    """Reads JSON objects `{"Width": W, "Height": H}`, however they are cut."""

    def __init__(self) -> None:
        self._text = ""
        self._decoder = json.JSONDecoder()

    def receive(self, data: bytes) -> list[TerminalSize]:
        """The sizes that are complete now. Raises: ChannelError."""
        self._text += data.decode("latin-1")
        sizes: list[TerminalSize] = []
        while True:
            self._text = self._text.lstrip(_JSON_SPACE)
            if not self._text:
                return sizes
            if self._text[0] != "{":
                raise ChannelError("a terminal size is not a JSON object")
            # No value of such an object may hold a brace, so the first one ends it.
            end = self._text.find("}") + 1
            if not end:
                if len(self._text) > _RESIZE_LIMIT_BYTES:
                    raise ChannelError("a terminal size does not end")
                return sizes
            sizes.append(self._size(self._text[:end]))
            self._text = self._text[end:]

    def _size(self, text: str) -> TerminalSize:
        try:
            value = {str(key).lower(): number for key, number in self._decoder.decode(text).items()}
            width, height = value.get("width", 0), value.get("height", 0)
        except (ValueError, RecursionError):
            raise ChannelError("a terminal size is not JSON") from None
        if type(width) is not int or type(height) is not int:
            raise ChannelError("a terminal size is not two integers")
        if not (0 <= width <= _SIZE_LIMIT and 0 <= height <= _SIZE_LIMIT):
            raise ChannelError(f"a terminal size of {width} x {height} is not possible")
        return TerminalSize(width, height)


# WebSocket messages


@dataclass(frozen=True, slots=True)
class ChannelData:
    """Bytes for a channel."""

    channel: int
    data: bytes


@dataclass(frozen=True, slots=True)
class ChannelEnd:
    """The client sends no more on a channel (v5)."""

    channel: int


class MessageDecoder:
    """Turns the pieces of WebSocket messages into bytes for channels."""

    def __init__(self, protocol: str) -> None:
        self._base64 = is_base64(protocol)
        self._close = protocol.startswith("v5.")
        self._channel = -1  # of the current message, -1 = not yet known
        self._rest = b""  # base64 characters that are no whole group yet
        self._padded = False

    def receive(self, data: bytes, *, last: bool) -> list[ChannelData | ChannelEnd]:
        """Take a piece of a message; `last` ends it. Raises: ChannelError."""
        events: list[ChannelData | ChannelEnd] = []
        if self._channel < 0 and data:
            self._channel = self._number(data[0])
            data = data[1:]
        if self._channel == CLOSE_CHANNEL and self._close:
            events += [ChannelEnd(number) for number in data]
        elif self._channel >= 0:
            if self._base64:
                data = self._decode(data, last)
            if data:
                events.append(ChannelData(self._channel, data))
        if last:
            self._channel, self._rest, self._padded = -1, b"", False
        return events

    def _number(self, first: int) -> int:
        if not self._base64:
            return first
        if not 0x30 <= first <= 0x39:
            raise ChannelError("a base64 message does not begin with a digit")
        return first - 0x30

    def _decode(self, data: bytes, last: bool) -> bytes:
        text = self._rest + data
        whole = len(text) if last else len(text) - len(text) % 4
        self._rest = text[whole:]
        if not whole:
            return b""
        if self._padded:
            raise ChannelError("a base64 message goes on behind its padding")
        try:
            decoded = base64.b64decode(text[:whole], validate=True)
        except binascii.Error:
            raise ChannelError("a message is not base64") from None
        self._padded = text[whole - 1 : whole] == b"="
        return decoded


def encode_message(protocol: str, channel: int, data: bytes) -> tuple[bytes, bytes]:
    """The parts of a WebSocket message for a channel; text with a base64 protocol, else binary."""
    if is_base64(protocol):
        return str(channel).encode(), base64.b64encode(data)
    return bytes([channel]), data
