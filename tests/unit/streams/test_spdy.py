from __future__ import annotations

import hashlib
import random
import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spdy_peer import Peer

from noded.wire import spdy
from noded.wire.spdy import DataReceived, SpdyConnection, SpdyError, StreamEnded, StreamOpened, StreamReset
from noded.wire.spdy_headers import DICTIONARY, HeaderDecoder, HeaderEncoder, HeaderError, parse_block

names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=20)
values = st.text(max_size=50)


def sent(connection, peer):
    return peer.receive(b"".join(connection.take()))


def test_the_dictionary_is_that_of_the_draft():
    assert len(DICTIONARY) == 1423
    assert hashlib.sha256(DICTIONARY).hexdigest().startswith("51d27341373f923f")


@given(st.lists(st.dictionaries(names, values, max_size=8), max_size=5))
def test_header_blocks_survive_the_way_in_order(blocks):
    encoder, decoder = HeaderEncoder(), HeaderDecoder()
    for block in blocks:
        assert decoder.decode(encoder.encode(block)) == block


@given(st.binary(max_size=300))
def test_any_bytes_as_a_header_block_are_decoded_or_refused(data):
    for read in (HeaderDecoder().decode, parse_block):
        with suppress(HeaderError):
            read(data)


def test_a_header_bomb_is_refused_without_being_inflated():
    deflate = zlib.compressobj(zdict=DICTIONARY)
    bomb = deflate.compress(bytes(50_000_000)) + deflate.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(HeaderError, match="larger than"):
        HeaderDecoder().decode(bomb)


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_any_bytes_are_understood_or_end_the_connection(data, size):
    connection = SpdyConnection()
    with_error = 0
    for at in range(0, len(data), size):
        try:
            connection.receive(data[at : at + size])
        except SpdyError:
            with_error += 1
        connection.take()
    assert len(connection._buffer) <= spdy.CONTROL_LIMIT_BYTES + 8 + size


@given(
    st.lists(st.tuples(st.sampled_from([1, 2, 3, 4, 6, 7, 8, 9, 10, 77]), st.binary(max_size=40)), max_size=8)
)
def test_any_control_frames_are_understood_or_end_the_connection(frames):
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {"a": "b"}))
    try:
        for kind, body in frames:
            connection.receive(peer.control(kind, body))
    except SpdyError:
        assert (7, struct.pack(">II", 1, 1)) in sent(connection, peer)


def conversation(rng):
    """Bytes of a whole conversation, and the events that it means."""
    peer, data, events = Peer(), b"", []
    for stream_id in (1, 3, 5):
        headers = {"streamtype": rng.choice(["stdin", "data"]), "port": str(stream_id)}
        data += peer.open(stream_id, headers)
        events.append(StreamOpened(stream_id, headers))
    for stream_id in (3, 1, 5, 1):
        payload = rng.randbytes(rng.randrange(0, 50))
        data += peer.data(stream_id, payload)
        events += [DataReceived(stream_id, payload)] if payload else []
    data += peer.control(6, struct.pack(">I", 1)) + peer.data(1, b"", fin=True) + peer.reset(5)
    events += [StreamEnded(1), StreamReset(5, 5)]
    return data, events


def joined(events):
    """Events with neighbouring data of one stream put together."""
    result = []
    for event in events:
        last = result[-1] if result else None
        both = isinstance(event, DataReceived) and isinstance(last, DataReceived)
        if both and event.stream_id == last.stream_id:
            result[-1] = DataReceived(event.stream_id, last.data + event.data)
        else:
            result.append(event)
    return result


@given(st.integers(0, 1000))
def test_a_conversation_means_the_same_wherever_it_is_cut(seed):
    data, events = conversation(random.Random(seed))
    for cut in range(len(data) + 1):
        connection = SpdyConnection()
        got = connection.receive(data[:cut]) + connection.receive(data[cut:])
        assert joined(got) == joined(events)
        assert (6, struct.pack(">I", 1)) in sent(connection, Peer())


def test_a_conversation_may_come_byte_by_byte(rng):
    data, events = conversation(rng)
    connection = SpdyConnection()
    got = [event for byte in data for event in connection.receive(bytes([byte]))]
    assert joined(got) == joined(events)


def test_a_stream_that_is_done_both_ways_is_forgotten():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {}))
    connection.reply(1)
    connection.send_data(1, b"answer", fin=True)
    assert connection.open_streams == 1
    connection.receive(peer.data(1, b"x", fin=True))
    assert connection.open_streams == 0
    assert [frame[0] for frame in sent(connection, peer)] == [2, "data"]
    assert connection.sendable(1) == -1


def test_a_peer_without_flow_control_is_never_held_back():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {}))
    for _ in range(10):
        connection.send_data(1, bytes(60000))
    assert connection.sendable(1) > 60000


def test_a_peer_that_knows_windows_is_held_to_them():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.settings(1000) + peer.open(1, {}))
    assert connection.sendable(1) == 1000
    connection.send_data(1, bytes(1000))
    assert connection.sendable(1) == 0
    with pytest.raises(ValueError, match="exceed"):
        connection.send_data(1, b"x")
    assert connection.receive(peer.window_update(1, 500)) == [spdy.WindowOpened(1)]
    assert connection.sendable(1) == 500
    connection.receive(peer.settings(100))
    assert connection.sendable(1) == 0
    connection.receive(peer.window_update(1, spdy.INITIAL_WINDOW_BYTES * 10))
    assert connection.sendable(1) == spdy.INITIAL_WINDOW_BYTES - 1000, "the session has a window, too"


def test_an_overflowing_window_resets_its_stream():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {}))
    events = connection.receive(peer.window_update(1, 0x7FFFFFFF))
    assert events == [StreamReset(1, spdy.Status.FLOW_CONTROL_ERROR)]


def test_consumed_bytes_are_credited_to_stream_and_session():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {}) + peer.data(1, bytes(40000)))
    assert sent(connection, peer) == []
    connection.consumed(1, 40000)
    assert sent(connection, peer) == [(9, struct.pack(">II", 1, 40000)), (9, struct.pack(">II", 0, 40000))]


def test_data_of_a_stream_that_was_given_up_is_dropped():
    peer, connection = Peer(), SpdyConnection()
    connection.receive(peer.open(1, {}))
    connection.reset(1, spdy.Status.CANCEL)
    assert connection.receive(peer.data(1, b"late") + peer.reset(1)) == []


def test_too_many_streams_are_refused_one_by_one():
    peer, connection = Peer(), SpdyConnection()
    for number in range(spdy.STREAM_LIMIT):
        connection.receive(peer.open(2 * number + 1, {}))
    assert connection.receive(peer.open(2 * spdy.STREAM_LIMIT + 1, {})) == []
    assert sent(connection, peer)[-1] == (3, struct.pack(">II", 2 * spdy.STREAM_LIMIT + 1, 3))


@pytest.mark.parametrize(
    "frames",
    [
        lambda peer: peer.open(2, {}),
        lambda peer: peer.open(1, {}) + peer.open(1, {}),
        lambda peer: peer.data(0, b"x"),
        lambda peer: peer.control(6, b"", version=2),
        lambda peer: struct.pack(">HHI", 0x8003, 4, 0xFFFFFF),
        lambda peer: peer.control(4, struct.pack(">I", 9)),
    ],
    ids=["even id", "id again", "stream 0", "version", "huge control frame", "settings count"],
)
def test_a_broken_protocol_ends_the_connection(frames):
    peer, connection = Peer(), SpdyConnection()
    with pytest.raises(SpdyError):
        connection.receive(frames(peer))
    assert sent(connection, peer)[-1][0] == 7
    with pytest.raises(SpdyError):
        connection.receive(b"")
