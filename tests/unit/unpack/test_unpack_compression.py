"""Layer streams: recognised, bounded, and never taken for complete when they are not."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from noded.images.unpack.compression import LayerStream
from noded.images.unpack.faults import CORRUPT, REFUSED, LayerFault
from noded.images.unpack.limits import UnpackLimits


@contextmanager
def piped(data: bytes) -> Iterator[int]:
    """`data` through a pipe, as a download would bring it."""
    read_end, write_end = os.pipe()

    def feed() -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(write_end, rest) :]
        except BrokenPipeError:
            pass
        finally:
            os.close(write_end)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        yield read_end
    finally:
        os.close(read_end)
        feeder.join()


def expand(data: bytes, limits: UnpackLimits | None = None) -> bytes:
    with piped(data) as fd:
        stream = LayerStream(fd, limits or UnpackLimits())
        parts = []
        while chunk := stream.chunk():
            parts.append(chunk)
        result = b"".join(parts)
        assert stream.diff_id == f"sha256:{hashlib.sha256(result).hexdigest()}"
        assert (stream.stream_bytes, stream.blob_bytes) == (len(result), len(data))
        assert stream.chunk() == b""
        return result


COMPRESSORS = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "two gzip members": lambda data: gzip.compress(data[:7]) + gzip.compress(data[7:]),
    "two zstd frames": lambda data: b"".join(map(zstandard.ZstdCompressor().compress, (data[:7], data[7:]))),
    "zstd after a skippable frame": lambda data: (
        b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstandard.ZstdCompressor().compress(data)
    ),
    "padded gzip": lambda data: gzip.compress(data) + bytes(9000),
}


@pytest.mark.parametrize("form", COMPRESSORS)
@given(data=st.binary(max_size=3000), repeat=st.integers(1, 300))
def test_what_was_compressed_comes_back(form: str, data: bytes, repeat: int) -> None:
    data = b"tar! " + data * repeat
    assert expand(COMPRESSORS[form](data)) == data


@pytest.mark.parametrize("size", [0, 1, 3])
def test_streams_shorter_than_a_magic_number_are_plain(size: int) -> None:
    assert expand(b"\x28\xb5\x2f"[:size]) == b"\x28\xb5\x2f"[:size]


@given(st.binary(min_size=1, max_size=500), st.data())
def test_a_truncated_gzip_stream_is_corrupt(data: bytes, draw: st.DataObject) -> None:
    blob = gzip.compress(data)
    cut = draw.draw(st.integers(3, len(blob) - 1))
    with pytest.raises(LayerFault) as caught:
        expand(blob[:cut])
    assert caught.value.kind == CORRUPT


@pytest.mark.parametrize("tail", [b"x", b"\0" * 100 + b"x", b"\x1f\x8b\x08"])
def test_gzip_followed_by_something_else_is_corrupt(tail: bytes) -> None:
    with pytest.raises(LayerFault) as caught:
        expand(gzip.compress(b"data") + tail)
    assert caught.value.kind == CORRUPT


@given(st.binary(max_size=2000), st.sampled_from((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")))
def test_arbitrary_bytes_behind_a_magic_number_are_read_or_refused(data: bytes, magic: bytes) -> None:
    try:
        expand(magic + data, UnpackLimits(max_bytes=1 << 20))
    except LayerFault as fault:
        kind = fault.kind
    else:
        return
    assert kind in (CORRUPT, REFUSED)


def test_a_wrong_gzip_checksum_is_corrupt() -> None:
    blob = bytearray(gzip.compress(b"data" * 100))
    blob[-6] ^= 1
    with pytest.raises(LayerFault, match="damaged"):
        expand(bytes(blob))


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_bomb_is_refused_after_little_work(form: str) -> None:
    blob = COMPRESSORS[form](bytes(64 << 20))
    with piped(blob) as fd:
        stream = LayerStream(fd, UnpackLimits(ratio_free_bytes=4 << 20, max_ratio=100))
        with pytest.raises(LayerFault, match="more than 100 times"):
            stream.drain()
        assert stream.stream_bytes < 8 << 20


def test_a_stream_longer_than_allowed_is_refused() -> None:
    with pytest.raises(LayerFault, match="longer than 1000 bytes"):
        expand(gzip.compress(os.urandom(5000)), UnpackLimits(max_bytes=1000))


def test_a_zstd_frame_with_a_huge_window_is_corrupt(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=29, enable_ldm=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(LayerFault, match="zstd"):
        expand(blob)
