from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websocket_peer import frame, parse

from noded.wire.websocket import Closed, Piece, WebSocket, WebSocketError, accept_key, mask

keys = st.binary(min_size=4, max_size=4)


def sent(socket):
    return parse(b"".join(socket.take()))


def messages(events):
    """Whole messages of pieces."""
    result, current = [], None
    for event in events:
        if event.first:
            assert current is None
            current = b""
        current += event.data
        if event.last:
            result.append((event.text, current))
            current = None
    return result


def test_the_accept_key_is_that_of_the_rfc():
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "abc", "YWJj", "é", "dGhlIHNhbXBsZSBub25jZQ"])
def test_a_wrong_key_is_refused(key):
    with pytest.raises(ValueError, match="Sec-WebSocket-Key"):
        accept_key(key)


@given(st.binary(max_size=300), keys, st.integers(0, 7))
def test_masking_is_exclusive_or_with_the_repeated_key(data, key, offset):
    wanted = bytes(byte ^ key[(index + offset) % 4] for index, byte in enumerate(data))
    assert mask(data, key, offset) == wanted


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(1, 4), keys), max_size=4), st.integers(1, 50))
def test_messages_survive_fragments_and_cuts(items, size):
    stream = b""
    for data, parts, key in items:
        step = len(data) // parts + 1
        pieces = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
        for index, piece in enumerate(pieces):
            stream += frame(2 if index == 0 else 0, piece, fin=index == len(pieces) - 1, key=key)
            stream += frame(9, b"ping")
    socket, events = WebSocket(), []
    for at in range(0, len(stream), size):
        events += socket.receive(stream[at : at + size])
    assert messages(events) == [(False, data) for data, _, _ in items]
    assert all(answer == (10, b"ping") for answer in sent(socket))


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 200000])
def test_lengths_of_every_form_are_read_and_written(length):
    socket = WebSocket()
    assert messages(socket.receive(frame(2, bytes(length)))) == [(False, bytes(length))]
    socket.send(b"\x01", bytes(length))
    assert sent(socket) == [(2, b"\x01" + bytes(length))]


@given(st.binary(max_size=500), st.integers(1, 40))
def test_any_bytes_are_understood_or_end_the_connection(data, size):
    socket = WebSocket()
    for at in range(0, len(data), size):
        try:
            socket.receive(data[at : at + size])
        except WebSocketError:
            assert socket.closed
    assert len(socket._buffer) < 140 + size


def test_a_message_is_handed_on_while_it_still_comes():
    socket = WebSocket()
    whole = frame(2, bytes(1 << 20))
    events = socket.receive(whole[:1000])
    assert events == [Piece(bytes(1000 - 14), False, True, False)]
    assert not socket._buffer


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (frame(2, b"x", masked=False), "masked"),
        (b"\xc2" + frame(2, b"x")[1:], "reserved"),
        (frame(3, b""), "opcode"),
        (frame(9, b"x", fin=False), "control"),
        (frame(9, bytes(126)), "control"),
        (frame(0, b"x"), "begins"),
        (frame(2, b"x", fin=False) + frame(2, b"y"), "begins"),
        (b"\x82\xfe\x00\x05" + bytes(9), "length"),
        (frame(1, b"\xff"), "UTF-8"),
        (frame(1, b"\xc3", fin=True), "UTF-8"),
        (frame(8, b"\x03"), "code"),
        (frame(8, b"\x03\xed"), "code"),
        (frame(8, b"\x03\xe8\xff"), "UTF-8"),
    ],
)
def test_a_broken_protocol_is_answered_with_a_close_frame(data, words):
    socket = WebSocket()
    with pytest.raises(WebSocketError, match=words):
        socket.receive(data)
    assert sent(socket)[-1][0] == 8
    assert socket.receive(frame(2, b"more")) == []


def test_a_close_is_answered_once_with_its_code():
    socket = WebSocket()
    assert socket.receive(frame(8, b"\x03\xe8bye") + frame(2, b"late")) == [Closed(1000, "bye")]
    assert sent(socket) == [(8, b"\x03\xe8")]
    socket.close()
    socket.send(b"late")
    assert sent(socket) == []


def test_text_may_be_cut_inside_a_character():
    socket = WebSocket()
    data = frame(1, "é".encode()[:1], fin=False) + frame(0, "é".encode()[1:])
    assert messages([event for byte in data for event in socket.receive(bytes([byte]))]) == [
        (True, "é".encode())
    ]
