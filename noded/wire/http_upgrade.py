"""The HTTP/1.1 request that opens a stream, and the answers to it.

RFC 9112 for a server that does one thing: it reads a head without a body and switches protocols. So
whatever could be understood in two ways is refused instead: bodies, folded lines, bare line feeds
inside a head, spaces before a colon.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

HEAD_LIMIT_BYTES = 16 * 1024
_HEADER_LIMIT = 100
_TARGET_LIMIT_BYTES = 4096

_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]+) HTTP/(\d)\.(\d)")
_ABSOLUTE = re.compile(rb"(?i:https?)://[^/?]+(.*)")
_HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)")


class UpgradeError(ValueError):
    """A request that is refused: the status, text and headers to answer with."""

    def __init__(self, status: HTTPStatus, message: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = tuple(headers)


@dataclass(frozen=True, slots=True)
class Request:
    """A request head. Header names are in lower case, in the order of arrival, perhaps repeated."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def values(self, name: str) -> list[str]:
        """The members of all headers of this name, each a comma-separated list (RFC 9110 5.6.1)."""
        members = [part.strip() for key, value in self.headers if key == name for part in value.split(",")]
        return [member for member in members if member]

    def has_token(self, name: str, token: str) -> bool:
        """Whether a list header has a member, whatever its case."""
        return token.lower() in (member.lower() for member in self.values(name))


class UpgradeParser:
    """Collects bytes until a head is complete. Keeps at most `limit_bytes` and one read beyond."""

    def __init__(self, limit_bytes: int = HEAD_LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._done = False

    def receive(self, data: bytes) -> Request | None:
        """Take bytes; return the request once its head is complete.

        Raises: UpgradeError. Bytes behind the head are in `trailing`.
        """
        if self._done:
            raise ValueError("the head is complete already")
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._searched = len(self._buffer)
            if len(self._buffer) > self._limit_bytes:
                raise self._too_large()
            return None
        if end > self._limit_bytes:
            raise self._too_large()
        head = bytes(self._buffer[:end])
        del self._buffer[: end + 4]
        self._done = True
        return _parse(head)

    @property
    def trailing(self) -> bytes:
        """Bytes that came behind the head: they belong to the new protocol."""
        return bytes(self._buffer)

    def _too_large(self) -> UpgradeError:
        self._buffer.clear()
        return UpgradeError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
            f"the request head is larger than {self._limit_bytes} bytes",
        )


def _parse(head: bytes) -> Request:
    first, *lines = head.lstrip(b"\r\n").split(b"\r\n")
    match = _REQUEST_LINE.fullmatch(first)
    if match is None:
        raise UpgradeError(HTTPStatus.BAD_REQUEST, "the request line is malformed")
    method, target, major, minor = match.groups()
    if major != b"1" or minor == b"0":
        raise UpgradeError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.1 is spoken here")
    if len(target) > _TARGET_LIMIT_BYTES:
        raise UpgradeError(HTTPStatus.REQUEST_URI_TOO_LONG, "the request target is too long")
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:  # clients of proxies send it (3.2.2)
        target = absolute[1] if absolute[1].startswith(b"/") else b"/" + absolute[1]
    elif not target.startswith(b"/"):
        raise UpgradeError(HTTPStatus.BAD_REQUEST, "the request target is neither a path nor a URL")
    if len(lines) > _HEADER_LIMIT:
        raise UpgradeError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"more than {_HEADER_LIMIT} header lines"
        )
    headers = []
    for line in lines:
        field = _HEADER.fullmatch(line)
        if field is None:
            raise UpgradeError(HTTPStatus.BAD_REQUEST, "a header line is malformed")
        headers.append((field[1].decode("ascii").lower(), field[2].decode("latin-1").strip(" \t")))
    request = Request(method.decode("ascii"), target.decode("ascii"), tuple(headers))
    _refuse_body(request)
    return request


def _refuse_body(request: Request) -> None:
    lengths = request.values("content-length")
    if request.values("transfer-encoding") or any(length != "0" for length in lengths):
        raise UpgradeError(HTTPStatus.BAD_REQUEST, "a request that switches protocols must not have a body")


def switching(headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of a 101 answer."""
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, [("Connection", "Upgrade"), *headers]) + b"\r\n"


def refusal(status: HTTPStatus, message: str, headers: Iterable[tuple[str, str]] = ()) -> bytes:
    """A complete answer that ends the connection."""
    body = f"{message}\n".encode()
    fields = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("X-Content-Type-Options", "nosniff"),
        ("Connection", "close"),
        *headers,
    ]
    return _head(status, fields) + b"\r\n" + body


def _head(status: HTTPStatus, headers: Iterable[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
