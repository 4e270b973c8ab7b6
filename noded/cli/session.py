"""The client's end of exec and attach: one WebSocket to the URL that the daemon gave, and a terminal.

Spec: RFC 6455; the channels are `noded.wire.channels`, version v5.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import json
import os
import shutil
import signal
import ssl
import struct
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from noded.errors import Internal, NodedError, Unavailable
from noded.wire import channels, websocket
from noded.wire.channels import Channel

_PROTOCOL = "v5.channel.k8s.io"
_CHUNK_BYTES = 1 << 15
_HEAD_LIMIT_BYTES = 1 << 16
_CONNECT_SECONDS = 10.0


def exit_code(status: bytes) -> int:
    """The exit code of a command from what the error channel said. Pure.

    Raises: Internal with the daemon's words when the command could not be run, or was lost.
    """
    try:
        said: dict[str, Any] = json.loads(status)
    except ValueError:
        raise Internal(f"the session ended without an exit code: {status[:200]!r}") from None
    if said.get("status") == "Success":
        return 0
    for cause in (said.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    raise Internal(str(said.get("message") or "the session failed"))


@contextmanager
def raw_terminal(wanted: bool) -> Iterator[None]:
    """Give every key to the container while this lasts, Ctrl-C too, where standard input is a terminal."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin, termios.TCSADRAIN)  # what was typed ahead stays
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def terminal_size() -> bytes:
    """The size of this terminal as a message of the resize channel."""
    size = shutil.get_terminal_size()
    with suppress(OSError):
        rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(sys.stdin, termios.TIOCGWINSZ, bytes(8)))
        if rows and columns:
            return json.dumps({"Width": columns, "Height": rows}).encode()
    return json.dumps({"Width": size.columns, "Height": size.lines}).encode()


class Session:
    """One session. Standard input is read in a thread of its own, only when the peer takes it."""

    def __init__(self, url: str, *, stdin: bool, tty: bool) -> None:
        self._url = url
        self._stdin = stdin
        self._tty = tty
        self._socket = websocket.WebSocket(masking_key=lambda: os.urandom(4))
        self._decoder = channels.MessageDecoder(_PROTOCOL)
        self._status = b""

    async def run(self) -> bytes:
        """Carry bytes both ways until the session ends; return what the error channel said.

        Raises: Unavailable when the connection cannot be made or breaks.
        """
        reader, self._writer = await self._connect()
        loop = asyncio.get_running_loop()
        if self._tty:
            loop.add_signal_handler(signal.SIGWINCH, self._resize)
            self._resize()
        if self._stdin:
            threading.Thread(target=self._read_stdin, args=(loop,), daemon=True).start()
        try:
            while data := await reader.read(_CHUNK_BYTES):
                if self._received(data):
                    break
                await self._flush()
            with suppress(OSError):
                await self._flush()
        except OSError as error:
            raise Unavailable(f"the session's connection broke: {error}") from error
        finally:
            if self._tty:
                loop.remove_signal_handler(signal.SIGWINCH)
            self._writer.close()
        return self._status

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._url)
        context = None
        if parts.scheme == "https":
            # The URL with its one-time token came from the daemon over its own socket, and leads to this
            # node; the certificate is for kubelet's name of it.
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Sec-WebSocket-Protocol: {_PROTOCOL}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port, ssl=context, limit=_HEAD_LIMIT_BYTES
                )
                writer.write(head.encode())
                answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, _, rest = answer.partition("\r\n")
                if " 101 " not in f"{status} ":
                    body = (await reader.read(1000)).decode(errors="replace").strip()
                    raise Unavailable(f"the daemon refused the session: {body or status}")
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Unavailable(f"cannot reach the streaming server at {parts.netloc}: {error}") from error
        headers = {
            line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in rest.splitlines()
        }
        if headers.get("sec-websocket-accept") != websocket.accept_key(key):
            raise Unavailable(f"{parts.netloc} is not a streaming server")
        return reader, writer

    def _received(self, data: bytes) -> bool:
        """Write what has come to the outputs; True when the session is over."""
        for event in self._socket.receive(data):
            if isinstance(event, websocket.Closed):
                return True
            for part in self._decoder.receive(event.data, last=event.last):
                if isinstance(part, channels.ChannelEnd):
                    continue
                if part.channel == Channel.ERROR:
                    self._status += part.data
                else:
                    output = sys.stderr.buffer if part.channel == Channel.STDERR else sys.stdout.buffer
                    output.write(part.data)
                    output.flush()
        return False

    async def _flush(self) -> None:
        self._writer.writelines(self._socket.take())
        await self._writer.drain()

    async def _send(self, channel: int, data: bytes) -> None:
        self._socket.send(*channels.encode_message(_PROTOCOL, channel, data))
        await self._flush()

    def _resize(self) -> None:
        self._socket.send(*channels.encode_message(_PROTOCOL, Channel.RESIZE, terminal_size()))
        self._writer.writelines(self._socket.take())

    def _read_stdin(self, loop: asyncio.AbstractEventLoop) -> None:
        # A thread: a regular file cannot be waited for. It ends with the process.
        with suppress(OSError, RuntimeError, asyncio.CancelledError, NodedError):
            while data := os.read(0, _CHUNK_BYTES):
                asyncio.run_coroutine_threadsafe(self._send(Channel.STDIN, data), loop).result()
            end = self._send(channels.CLOSE_CHANNEL, bytes([Channel.STDIN]))
            asyncio.run_coroutine_threadsafe(end, loop).result()
