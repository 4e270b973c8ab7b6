"""The header block of SPDY/3: name-value pairs, compressed with one zlib context per direction.

SPDY protocol draft 3, section 2.6.10. Both contexts live as long as the connection, so every block
must go through `HeaderDecoder`, also that of a stream that is refused.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping

LIMIT_BYTES = 32 * 1024  # of a block after decompression; real ones have some hundred bytes
LIMIT_PAIRS = 128

_LENGTH = struct.Struct(">I")

# The words of the dictionary are stored with a 32-bit length in front; the rest is plain text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base content-encoding "
    "content-language content-length content-location content-md5 content-range content-type date etag "
    "expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since "
    "last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer "
    "retry-after server te trailer transfer-encoding upgrade user-agent vary via warning "
    "www-authenticate method get status|200 OK|version HTTP/1.1 url public set-cookie keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 "
    "Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,"
    "text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdch"
    "charset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _dictionary() -> bytes:
    parts = _WORDS.split("|")
    words = [*parts[0].split(), parts[1], *parts[2].split()]
    return b"".join(_LENGTH.pack(len(word)) + word.encode() for word in words) + _TEXT.encode()


DICTIONARY = _dictionary()


class HeaderError(ValueError):
    """A header block that cannot be understood; the connection cannot go on."""


class HeaderEncoder:
    """Compresses header blocks, in the order in which they are sent."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(zdict=DICTIONARY)

    def encode(self, headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> bytes:
        """One block. Names are written in lower case, as the draft demands."""
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        block = bytearray(_LENGTH.pack(len(pairs)))
        for name, value in pairs:
            for text in (name.lower(), value):
                data = text.encode("utf-8", "surrogateescape")
                block += _LENGTH.pack(len(data)) + data
        return self._zlib.compress(bytes(block)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class HeaderDecoder:
    """Decompresses header blocks, in the order in which they arrive."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)
        self._limit_bytes = limit_bytes

    def decode(self, data: bytes) -> dict[str, str]:
        """The pairs of one block, names in lower case; several values of a name are joined by NUL.

        Raises: HeaderError for anything malformed or larger than the limit.
        """
        try:
            block = self._zlib.decompress(data, self._limit_bytes + 1)
        except zlib.error as error:
            raise HeaderError(f"header block: {error}") from None
        if len(block) > self._limit_bytes or self._zlib.unconsumed_tail:
            raise HeaderError(f"header block is larger than {self._limit_bytes} bytes")
        if self._zlib.eof:
            raise HeaderError("header block ends the compression stream")
        return parse_block(block)


def parse_block(block: bytes) -> dict[str, str]:
    """Parse an uncompressed block. Raises: HeaderError."""
    count, at = _number(block, 0)
    if count > LIMIT_PAIRS:
        raise HeaderError(f"header block has {count} pairs, at most {LIMIT_PAIRS} are allowed")
    headers: dict[str, str] = {}
    for _ in range(count):
        name, at = _text(block, at)
        value, at = _text(block, at)
        name = name.lower()
        if not name or name in headers:
            raise HeaderError(f"header name {name!r} is empty or repeated")
        headers[name] = value
    if at != len(block):
        raise HeaderError("header block has bytes behind its last pair")
    return headers


def _number(block: bytes, at: int) -> tuple[int, int]:
    if at + 4 > len(block):
        raise HeaderError("header block is cut short")
    return _LENGTH.unpack_from(block, at)[0], at + 4


def _text(block: bytes, at: int) -> tuple[str, int]:
    length, at = _number(block, at)
    if length > len(block) - at:
        raise HeaderError("header block is cut short")
    return block[at : at + length].decode("utf-8", "surrogateescape"), at + length
