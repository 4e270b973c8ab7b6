"""What the codec accepts, compared with google.protobuf as an independent parser."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from noded.edge.codec import Codec
from noded.errors import InvalidArgument
from noded.proto.runtime import v1

codec = Codec()


def varint(value):
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def records(depth=2):
    """Bytes that look like fields, rightly or wrongly typed, of the messages under test."""
    number = st.integers(0, 20)
    payload = st.binary(max_size=8) if depth == 0 else st.one_of(st.binary(max_size=8), messages(depth - 1))
    return st.one_of(
        st.builds(lambda n, v: varint(n << 3) + varint(v), number, st.integers(0, 2**64 - 1)),
        st.builds(lambda n, d: varint(n << 3 | 2) + varint(len(d)) + d, number, payload),
        st.builds(lambda n, d: varint(n << 3 | 1) + d, number, st.binary(min_size=8, max_size=8)),
        st.builds(lambda n, d: varint(n << 3 | 5) + d, number, st.binary(min_size=4, max_size=4)),
    )


def messages(depth=2):
    return st.lists(records(depth), max_size=6).map(b"".join)


@given(data=st.one_of(st.binary(max_size=60), messages()), cut=st.integers(0, 3))
def test_bytes_are_accepted_only_if_google_protobuf_accepts_them(stubs, data, cut):
    data = data[: len(data) - cut]
    try:
        message = codec.decode(data, v1.RunPodSandboxRequest)
    except InvalidArgument:
        return
    theirs = stubs.cri.RunPodSandboxRequest.FromString(data)
    # betterproto2 keeps the last of two submessages where google merges them: compare simple ones.
    if data.count(b"\x0a") <= 1:
        assert message.runtime_handler == theirs.runtime_handler
        assert (message.config is not None) == theirs.HasField("config")


@given(messages())
def test_whatever_is_accepted_encodes_again_to_something_acceptable(data):
    try:
        message = codec.decode(data, v1.RunPodSandboxRequest)
    except InvalidArgument:
        return
    assert codec.decode(bytes(message), v1.RunPodSandboxRequest) == message


@given(st.data())
def test_a_valid_message_cut_anywhere_is_refused_or_a_shorter_message(stubs, data):
    request = stubs.cri.RunPodSandboxRequest(
        runtime_handler="kata",
        config=stubs.cri.PodSandboxConfig(
            metadata=stubs.cri.PodSandboxMetadata(name="n", attempt=3), labels={"a": "b"}
        ),
    )
    whole = request.SerializeToString()
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        codec.decode(part, v1.RunPodSandboxRequest)
    except InvalidArgument:
        with pytest.raises(DecodeError):
            stubs.cri.RunPodSandboxRequest.FromString(part)
    else:
        stubs.cri.RunPodSandboxRequest.FromString(part)


def test_unknown_fields_survive():
    data = bytes(v1.StopPodSandboxRequest(pod_sandbox_id="a")) + b"\xfa\x3f\x03new"
    assert bytes(codec.decode(data, v1.StopPodSandboxRequest)) == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x08\x01", "pod_sandbox_id has wire type 0"),
        (b"\x0a\x05ab", "cut off"),
        (b"\x0b\x0c", "wire type 3"),
        (b"\x02\x00", "field number 0"),
        (b"\x0a" + b"\xff" * 11, "longer than 10 bytes"),
        (b"\x0a\x01\xff", "utf-8"),
    ],
)
def test_the_error_says_what_is_wrong(data, words):
    with pytest.raises(InvalidArgument, match=words):
        codec.decode(data, v1.StopPodSandboxRequest)


def test_ready_bytes_pass_through_and_a_wrong_type_is_a_defect():
    assert codec.encode(b"abc", v1.VersionResponse) == b"abc"
    with pytest.raises(TypeError):
        codec.encode(v1.VersionRequest(), v1.VersionResponse)
