from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.wire import channels
from noded.wire.channels import (
    ChannelData,
    ChannelEnd,
    ChannelError,
    MessageDecoder,
    ResizeParser,
    TerminalSize,
)

PROTOCOLS = channels.WEBSOCKET_COMMAND


def test_the_client_s_first_known_protocol_is_taken():
    assert channels.negotiate(["v9", "v3.channel.k8s.io", "v4.channel.k8s.io"], channels.SPDY_COMMAND) == (
        "v3.channel.k8s.io"
    )
    assert channels.negotiate(["v9"], channels.SPDY_COMMAND) is None
    assert "v5.channel.k8s.io" not in channels.SPDY_COMMAND


def test_an_exit_code_is_a_cause_of_the_status():
    status = json.loads(channels.exit_status("v4.channel.k8s.io", 7))
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
    assert json.loads(channels.exit_status("v5.channel.k8s.io", 0))["status"] == "Success"
    assert b"status 7" in channels.exit_status("v2.channel.k8s.io", 7)
    assert channels.exit_status("channel.k8s.io", 0) == b""
    assert json.loads(channels.error_status("v4.base64.channel.k8s.io", "x"))["reason"] == "InternalError"
    assert channels.error_status("v3.channel.k8s.io", "x") == b"x"


sizes = st.builds(TerminalSize, st.integers(0, 65535), st.integers(0, 65535))


@given(st.lists(sizes, max_size=5), st.integers(1, 20), st.sampled_from(["", "\n", " \r\n"]))
def test_sizes_are_read_however_they_are_cut(wanted, step, between):
    text = "".join(json.dumps({"Width": size.width, "Height": size.height}) + between for size in wanted)
    parser, got = ResizeParser(), []
    for at in range(0, len(text), step):
        got += parser.receive(text[at : at + step].encode())
    assert got == wanted


@given(st.lists(st.binary(max_size=200), max_size=50))
def test_any_bytes_for_a_size_are_read_or_refused(parts):
    parser = ResizeParser()
    try:
        for part in parts:
            parser.receive(part)
    except ChannelError:
        pass
    assert len(parser._text) <= 4096 + 200


@pytest.mark.parametrize(
    "data", [b"x", b"[]", b'{"Width":"a"}', b'{"Width":1.5}', b'{"Width":70000}', b"{" + b" " * 5000, b"{1}"]
)
def test_what_is_no_size_is_refused(data):
    with pytest.raises(ChannelError):
        ResizeParser().receive(data)


def merged(events):
    result = []
    for event in events:
        if result and isinstance(event, ChannelData) and result[-1].channel == event.channel:
            result[-1] = ChannelData(event.channel, result[-1].data + event.data)
        else:
            result.append(event)
    return result


@given(st.sampled_from(PROTOCOLS), st.integers(0, 4), st.binary(max_size=100), st.integers(1, 30))
def test_a_message_survives_the_way_in_pieces(protocol, channel, data, step):
    message = b"".join(channels.encode_message(protocol, channel, data))
    decoder, events = MessageDecoder(protocol), []
    for at in range(0, len(message), step):
        events += decoder.receive(message[at : at + step], last=at + step >= len(message))
    assert merged(events) == ([ChannelData(channel, data)] if data else [])


@given(st.sampled_from(PROTOCOLS), st.lists(st.tuples(st.binary(max_size=40), st.booleans()), max_size=20))
def test_any_messages_are_read_or_refused(protocol, pieces):
    decoder = MessageDecoder(protocol)
    try:
        for data, last in pieces:
            decoder.receive(data, last=last)
    except ChannelError:
        pass
    assert len(decoder._rest) < 4


def test_channel_255_closes_others_in_version_5_only():
    assert MessageDecoder("v5.channel.k8s.io").receive(b"\xff\x00", last=True) == [ChannelEnd(0)]
    assert MessageDecoder("v4.channel.k8s.io").receive(b"\xff\x00", last=True) == [ChannelData(255, b"\x00")]


@pytest.mark.parametrize("data", [b"xYWJj", b"0YW=j", b"0YQ==YQ==", b"0YWJ", b"0****"])
def test_what_is_no_base64_is_refused(data):
    with pytest.raises(ChannelError):
        MessageDecoder("base64.channel.k8s.io").receive(data, last=True)


def test_base64_behind_padding_in_another_piece_is_refused():
    decoder = MessageDecoder("base64.channel.k8s.io")
    decoder.receive(b"0" + base64.b64encode(b"a"), last=False)
    with pytest.raises(ChannelError):
        decoder.receive(b"YWJj", last=True)
