"""A layer blob as a stream of uncompressed chunks, hashed and bounded on the way.

The compression is recognised by its magic number, not by the media type: registries hold plain tars
labelled gzip and the reverse, and both peers look at the bytes. Each step of a decompressor is capped,
so a bomb costs one chunk of memory at most.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import zstandard
from isal import igzip_lib

from noded.images.unpack.faults import corrupt, refused
from noded.images.unpack.limits import UnpackLimits

CHUNK_BYTES = 256 << 10  # fits the L2 cache together with its compressed input
_READ_BYTES = 128 << 10
_MAX_WINDOW_BYTES = 128 << 20  # what zstd --ultra -22 and --long=27 ask for
_GZIP_ERRORS: Any = (igzip_lib.IsalError, EOFError, ValueError)  # its stub calls IsalError an instance
_MAGIC_GZIP = b"\x1f\x8b"
_MAGIC_ZSTD = b"\x28\xb5\x2f\xfd"
_MAGIC_BYTES = 4


class LayerStream:
    """The uncompressed bytes behind a file descriptor.

    `chunk()` returns the next non-empty piece, b"" at the end. `digest` is meaningful at the end only.
    Works on files and pipes alike: it only reads forward.

    Raises (from chunk): LayerFault, corrupt for damaged or truncated data, refused beyond limits.
    """

    def __init__(self, fd: int, limits: UnpackLimits) -> None:
        self._fd = fd
        self._limits = limits
        self._sha256 = hashlib.sha256(usedforsecurity=False)
        self._next: Callable[[], bytes] | None = None
        self._ended = False
        self.stream_bytes = 0
        self.blob_bytes = 0

    def chunk(self) -> bytes:
        """The next decompressed bytes, b"" at the end. Raises: LayerFault, also beyond the limits."""
        if self._ended:
            return b""
        if self._next is None:
            self._next = self._decoder().__next__
        try:
            data = self._next()
        except StopIteration:
            self._ended = True
            return b""
        self._sha256.update(data)
        self.stream_bytes += len(data)
        self._check_limits()
        return data

    def drain(self) -> None:
        """Read to the end: bytes after the archive belong to the digest, and pipes want a reader."""
        while self.chunk():
            pass

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._sha256.hexdigest()}"

    def _check_limits(self) -> None:
        limits = self._limits
        if self.stream_bytes > limits.max_bytes:
            raise refused(f"it is longer than {limits.max_bytes} bytes uncompressed")
        if (
            self.stream_bytes > limits.ratio_free_bytes
            and self.stream_bytes > self.blob_bytes * limits.max_ratio
        ):
            raise refused(f"it expands to more than {limits.max_ratio} times its compressed size")

    def _read(self, size: int = _READ_BYTES) -> bytes:
        data = os.read(self._fd, size)
        self.blob_bytes += len(data)
        return data

    def _decoder(self) -> Iterator[bytes]:
        head = b""
        while len(head) < _MAGIC_BYTES:
            more = self._read(_READ_BYTES)
            if not more:
                break
            head += more
        if head.startswith(_MAGIC_GZIP):
            return self._gzip(head)
        if head.startswith(_MAGIC_ZSTD) or _is_skippable_zstd_frame(head):
            return self._zstd(head)
        return self._plain(head)

    def _plain(self, head: bytes) -> Iterator[bytes]:
        while head:
            yield head
            head = self._read(CHUNK_BYTES)

    def _gzip(self, data: bytes) -> Iterator[bytes]:
        while data:
            member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            yield from self._gzip_member(member, data)
            data = member.unused_data or self._read()
            if data and not data.startswith(b"\x1f"):
                self._zero_padding(data)
                return

    def _gzip_member(self, member: Any, data: bytes) -> Iterator[bytes]:
        while not member.eof:
            try:
                out = member.decompress(data, CHUNK_BYTES)
            except _GZIP_ERRORS as error:
                raise corrupt(f"its gzip data is damaged: {error}") from None
            if out:
                yield out
            data = b""
            if not member.eof and member.needs_input:
                data = self._read()
                if not data:
                    raise corrupt("its gzip data ends early")

    def _zero_padding(self, data: bytes) -> None:
        """gzip(1) allows a file to be padded with zeros (tapes); anything else is damage."""
        while data:
            if data.strip(b"\0"):
                raise corrupt("its gzip data is followed by something else")
            data = self._read()

    def _zstd(self, head: bytes) -> Iterator[bytes]:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        source: Any = _Replay(head, self._read)  # the stub asks for a whole file, the reader for read() alone
        reader = decompressor.stream_reader(source, read_size=_READ_BYTES, read_across_frames=True)
        while True:
            try:
                data = reader.read(CHUNK_BYTES)
            except zstandard.ZstdError as error:
                raise corrupt(f"its zstd data is damaged: {error}") from None
            if not data:
                return
            yield data


class _Replay:
    """A `read(size)` object: first the bytes already read, then the rest."""

    def __init__(self, head: bytes, read: Callable[[int], bytes]) -> None:
        self._head = head
        self._read = read

    def read(self, size: int) -> bytes:
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
            return data
        return self._read(size)


def _is_skippable_zstd_frame(head: bytes) -> bool:
    # RFC 8878 3.1.2: magic 0x184D2A50 to 0x184D2A5F, little endian. zstd:chunked and pzstd use them.
    return len(head) >= _MAGIC_BYTES and head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50
