from __future__ import annotations

from contextlib import suppress
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.wire.http_upgrade import HEAD_LIMIT_BYTES, UpgradeError, UpgradeParser, refusal, switching

HEAD = (
    b"POST /exec/abc?x=1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
    b"UPGRADE:\tSPDY/3.1 \r\n\r\n"
)


@given(st.integers(0, len(HEAD) + 3))
def test_a_head_is_read_wherever_it_is_cut(cut):
    parser, data = UpgradeParser(), HEAD + b"SPDY"
    request = parser.receive(data[:cut])
    if request is None:
        request = parser.receive(data[cut:])
        rest = parser.trailing
    else:
        rest = parser.trailing + data[cut:]
    assert (request.method, request.path, rest) == ("POST", "/exec/abc", b"SPDY")
    assert request.has_token("connection", "upgrade")
    assert request.values("upgrade") == ["SPDY/3.1"]
    assert request.values("host") == ["a"]


@given(st.binary(max_size=400), st.integers(1, 50))
def test_any_bytes_are_waited_for_read_or_refused(data, size):
    parser = UpgradeParser(limit_bytes=200)
    try:
        for at in range(0, len(data), size):
            if parser.receive(data[at : at + size]) is not None:
                return
    except UpgradeError:
        pass
    assert len(parser._buffer) <= 200 + size


@given(st.lists(st.text("abcXYZ019 :,-\t\x00é=?/", max_size=30), max_size=10))
def test_any_lines_are_read_or_refused(lines):
    with suppress(UpgradeError):
        UpgradeParser().receive("\r\n".join(["GET / HTTP/1.1", *lines, "", ""]).encode("latin-1"))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", 505),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"get / HTTP/1.1\r\n\r\n", 400),
        (b"GET exec/abc HTTP/1.1\r\n\r\n", 400),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", 400),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 400),
        (b"GET http:///exec/abc HTTP/1.1\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * HEAD_LIMIT_BYTES + b"\r\n\r\n", 431),
        (b"x" * (HEAD_LIMIT_BYTES + 1), 431),
    ],
)
def test_what_could_be_misunderstood_is_refused(head, status):
    with pytest.raises(UpgradeError) as caught:
        UpgradeParser().receive(head)
    assert caught.value.status == status


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://a:1/exec/abc?x", "/exec/abc"), ("HTTPS://[::1]/exec", "/exec"), ("http://a?x", "/")],
)
def test_a_target_may_be_a_whole_url(target, path):
    assert UpgradeParser().receive(f"GET {target} HTTP/1.1\r\n\r\n".encode()).path == path


def test_an_empty_body_is_allowed():
    assert UpgradeParser().receive(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n") is not None


def test_answers_are_complete():
    assert switching([("Upgrade", "SPDY/3.1")]) == (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    )
    answer = refusal(HTTPStatus.NOT_FOUND, "no such thing")
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Content-Length: 14\r\n" in answer
    assert answer.endswith(b"\r\n\r\nno such thing\n")


def test_a_long_run_of_spaces_takes_no_longer_than_other_bytes():
    head = b"GET / HTTP/1.1\r\nA: " + b" " * 16000 + b"x\r\n\r\n"
    assert UpgradeParser().receive(head).values("a") == ["x"]
