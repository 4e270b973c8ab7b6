"""ttrpc's framing."""

from __future__ import annotations

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.wire.ttrpc import MAX_DATA_BYTES, Frame, FrameReader, FrameType, Request

FRAMES = st.lists(
    st.builds(
        Frame, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=60), st.integers(0, 255)
    ),
    max_size=6,
)


@given(FRAMES, st.lists(st.integers(1, 50), min_size=1))
def test_frames_come_back_however_the_stream_is_cut(frames, sizes):
    stream = b"".join(frame.encode() for frame in frames)
    reader, found, position, turn = FrameReader(), [], 0, 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        found += reader.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
    assert found == frames
    assert not reader.incomplete


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_incomplete_or_refused(data):
    reader = FrameReader()
    with suppress(ValueError):
        used = sum(10 + len(frame.data) for frame in reader.feed(data))
        assert reader.incomplete == (used < len(data))


def test_the_header_is_that_of_the_protocol():
    assert Frame(3, FrameType.REQUEST, b"abc").encode() == bytes.fromhex("00000003 00000003 01 00") + b"abc"


def test_a_frame_of_the_largest_size_passes_and_a_larger_one_does_not():
    largest = Frame(1, FrameType.RESPONSE, bytes(MAX_DATA_BYTES))
    assert FrameReader().feed(largest.encode()) == [largest]
    with pytest.raises(ValueError, match="4194305 bytes is larger"):
        Frame(1, FrameType.REQUEST, bytes(MAX_DATA_BYTES + 1)).encode()
    with pytest.raises(ValueError, match="announces 4194305 bytes"):
        FrameReader().feed(struct.pack(">IIBB", MAX_DATA_BYTES + 1, 1, 2, 0))


def test_the_reader_says_whether_a_frame_is_incomplete():
    reader = FrameReader()
    assert not reader.incomplete
    assert reader.feed(b"\0\0\0\5") == []
    assert reader.incomplete


def test_a_request_is_encoded_as_containerd_does():
    request = Request("containerd.task.v2.Task", "State", b"\x0a\x01x", 1000)
    assert request.encode() == (b"\x0a\x17containerd.task.v2.Task\x12\x05State\x1a\x03\x0a\x01x\x20\xe8\x07")
