from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import DataLoss, InvalidArgument
from noded.wire import digest as digests


@given(st.binary(max_size=200), st.sampled_from(["sha256", "sha512"]))
def test_the_digest_of_bytes_parses_and_verifies(data: bytes, algorithm: str) -> None:
    digest = digests.of(data, algorithm)
    assert digests.parse(digest) == digest
    assert digests.encoded(digest) == hashlib.new(algorithm, data).hexdigest()
    digests.verify(data, digest, "blob")
    hasher = digests.hasher(digest)
    hasher.update(data)
    assert hasher.hexdigest() == digests.encoded(digest)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_other_bytes_do_not_verify(data: bytes, other: bytes) -> None:
    if data == other:
        return
    with pytest.raises(DataLoss, match="manifest of x is damaged"):
        digests.verify(other, digests.of(data), "manifest of x")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no algorithm"),
        ("a" * 64, "no algorithm"),
        ("md5:" + "a" * 32, "'md5'"),
        ("sha256:abc", "3 digits"),
        ("sha256:" + "A" * 64, "other than 0-9"),
        ("sha256:" + "a" * 63 + "\n", "other than 0-9"),
        ("sha256:" + "a" * 64 + "\n", "65 digits"),
        ("sha256:" + "../" * 21 + "a", "other than"),
    ],
)
def test_what_is_no_digest_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        digests.parse(text)


@given(st.text(max_size=100))
def test_parse_accepts_or_refuses_any_text(text: str) -> None:
    try:
        digests.parse(text)
    except InvalidArgument:
        return
    assert digests.algorithm(text) in digests.HEX_LENGTH
