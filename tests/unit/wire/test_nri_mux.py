"""The multiplexer of NRI: what one side frames the other one gets, however the bytes arrive."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.wire.nri_mux import MAX_PAYLOAD_BYTES, MuxReader, encode

messages = st.lists(st.tuples(st.integers(0, 2**32 - 1), st.binary(max_size=9000)), max_size=6)


@given(messages, st.data())
def test_each_connection_gets_its_bytes_in_order_however_they_are_cut(sent, data):
    stream = b"".join(encode(connection, message) for connection, message in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, got = MuxReader(), {}
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        for connection, piece in reader.feed(stream[start:end]):
            got.setdefault(connection, bytearray()).extend(piece)
    expected = {}
    for connection, message in sent:
        expected.setdefault(connection, bytearray()).extend(message)
    assert got == expected


@given(st.binary(max_size=400))
def test_any_bytes_give_frames_or_a_refusal(data):
    reader = MuxReader()
    try:
        pieces = reader.feed(data)
    except ValueError:
        return  # the length of a header is too large: the next test says when
    assert sum(len(piece) + 8 for _, piece in pieces) <= len(data)


def test_a_frame_has_connection_and_length_in_front_big_endian():
    assert encode(2, b"abc") == b"\0\0\0\2\0\0\0\3abc"


@pytest.mark.parametrize("size", [4096, 4097, 9000, 200_000])
def test_the_first_piece_fits_a_go_peers_buffer_and_the_rest_is_one_piece(size):
    pieces = MuxReader().feed(encode(1, b"x" * size))
    assert [len(piece) for _, piece in pieces] == [4096, *([size - 4096] if size > 4096 else [])]


def test_a_frame_that_announces_too_much_is_refused_before_its_data_comes():
    with pytest.raises(ValueError, match="announces"):
        MuxReader().feed(struct.pack(">II", 1, MAX_PAYLOAD_BYTES + 1))


def test_a_message_that_no_peer_has_to_take_is_not_framed():
    with pytest.raises(ValueError, match="larger"):
        encode(1, bytes(MAX_PAYLOAD_BYTES + 1))
