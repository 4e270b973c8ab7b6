"""Sessions of a test: exec, attach and port-forward over WebSocket, as an API server opens them."""

from __future__ import annotations

import base64
import json
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from noded.wire.channels import CLOSE_CHANNEL, Channel
from noded.wire.websocket import Opcode, mask

COMMAND: Final = "v5.channel.k8s.io"
PORTS: Final = "v4.channel.k8s.io"
_CONNECT_SECONDS: Final = 10.0
_READ_BYTES: Final = 1 << 16


class Session:
    """One connection to a URL that noded's streaming server gave. Blocking; use it with `with`.

    Args:
        url: what Exec, Attach or PortForward answered.
        protocol: the WebSocket subprotocol.
    """

    def __init__(self, url: str, protocol: str) -> None:
        where = urlsplit(url)
        assert where.hostname is not None
        self._socket = socket.create_connection((where.hostname, where.port or 80), _CONNECT_SECONDS)
        self._buffer = b""
        self.closed = False
        self.seen: defaultdict[int, bytes] = defaultdict(bytes)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = (
            f"GET {where.path} HTTP/1.1", f"Host: {where.netloc}",
            "Connection: Upgrade", "Upgrade: websocket",
            "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {key}", f"Sec-WebSocket-Protocol: {protocol}",
        )  # fmt: skip
        self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        while b"\r\n\r\n" not in self._buffer and not self.closed:
            self._receive()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head.decode(errors="replace")

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, channel: int, data: bytes) -> None:
        """Send data on a channel, in one message."""
        payload = bytes([channel]) + data
        key, length = os.urandom(4), len(payload)
        head = bytes([0x80 | Opcode.BINARY])
        if length < 126:
            head += bytes([0x80 | length])
        else:
            assert length < 1 << 16
            head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
        self._socket.sendall(head + key + mask(payload, key))

    def type(self, text: str) -> None:
        """Give input to the command."""
        self.send(Channel.STDIN, text.encode())

    def end_input(self) -> None:
        self.send(CLOSE_CHANNEL, bytes([Channel.STDIN]))

    def resize(self, width: int, height: int) -> None:
        """Tell the size of the client's terminal, in character cells."""
        self.send(Channel.RESIZE, json.dumps({"Width": width, "Height": height}).encode())

    def until(self, channel: int, text: bytes, seconds: float = 20.0) -> bytes:
        """Read until the channel has brought `text`; return all that it has brought."""
        self._read(lambda: text in self.seen[channel], seconds, f"{text!r} on channel {channel}")
        return self.seen[channel]

    def more_lines(self, channel: int, count: int, seconds: float = 20.0) -> None:
        """Read until the channel has brought so many lines."""
        self._read(lambda: self.seen[channel].count(b"\n") >= count, seconds, f"{count} lines on {channel}")

    def more_bytes(self, channel: int, count: int, seconds: float = 60.0) -> None:
        """Read until the channel has brought so many bytes."""
        self._read(lambda: len(self.seen[channel]) >= count, seconds, f"{count} bytes on {channel}")

    def exit_code(self, seconds: float = 20.0) -> int:
        """Read until the server ends the session; return how the command ended."""
        self._read(lambda: self.closed, seconds, "the end of the session")
        status = json.loads(self.seen[Channel.ERROR])
        if status["status"] == "Success":
            return 0
        (cause,) = status["details"]["causes"]
        assert cause["reason"] == "ExitCode", status
        return int(cause["message"])

    def _read(self, enough: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not enough():
            assert not self.closed, f"the session ended before {what}; it brought {dict(self.seen)}"
            while self._take_frame():
                pass
            if enough() or self.closed:
                continue
            left = deadline - time.monotonic()
            assert left > 0, f"not within {seconds:g} s: {what}; it brought {dict(self.seen)}"
            self._socket.settimeout(left)
            try:
                self._receive()
            except TimeoutError:
                continue

    def _receive(self) -> None:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            self.closed = True
        self._buffer += data

    def _take_frame(self) -> bool:
        """Take one frame from the buffer; a server neither masks nor, here, fragments."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, at = buffer[1], 2
        if length == 126:
            length, at = int.from_bytes(buffer[2:4], "big"), 4
        elif length == 127:
            length, at = int.from_bytes(buffer[2:10], "big"), 10
        if len(buffer) < at + length:
            return False
        payload, self._buffer = buffer[at : at + length], buffer[at + length :]
        opcode = buffer[0] & 0x0F
        if opcode == Opcode.CLOSE:
            self.closed = True
        elif opcode == Opcode.BINARY and payload:
            self.seen[payload[0]] += payload[1:]
        return True
