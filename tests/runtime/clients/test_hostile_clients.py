"""Whoever reaches the streaming port without a token gets nothing, and keeps nobody else waiting."""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.root

UPGRADE = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"


@pytest.fixture
def ask_url(cri, api, web):
    """ask_url() -> a fresh URL of an exec of `true`."""
    request = cri.pb.ExecRequest(container_id=api.pods[web][1], cmd=["true"], stdout=True)
    return lambda: urlsplit(cri.runtime.Exec(request, timeout=20).url)


def answer(url, path=None, headers=UPGRADE):
    """The first line of the answer, b"" when the connection was closed without one."""
    with socket.create_connection((url.hostname, url.port), timeout=30) as connection:
        connection.sendall(f"POST {path or url.path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        return connection.recv(1000).split(b"\r\n")[0]


def test_guessed_tokens_are_unknown(ask_url, counts):
    url = ask_url()
    for _ in range(counts(50, 2000)):
        guess = f"/exec/{secrets.token_urlsafe(32)}"
        assert answer(url, guess) == b"HTTP/1.1 404 Not Found"
    assert answer(url) == b"HTTP/1.1 101 Switching Protocols"


def test_a_used_token_and_one_of_another_kind_are_unknown(ask_url):
    url = ask_url()
    assert answer(url, url.path.replace("/exec/", "/attach/")) == b"HTTP/1.1 404 Not Found"
    assert answer(url) == b"HTTP/1.1 101 Switching Protocols"
    assert answer(url) == b"HTTP/1.1 404 Not Found"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("A: " + "x" * 70_000 + "\r\n", b"431"),
        ("A: b\r\n" * 3000, b"431"),
        ("Transfer-Encoding: chunked\r\n", b"400"),
        ("Content-Length: 5\r\n", b"400"),
    ],
)
def test_heads_that_are_too_large_or_have_a_body_are_refused(ask_url, headers, status):
    url = ask_url()
    try:
        line = answer(url, headers=headers)
    except ConnectionError:  # closed while we were still sending
        line = b"HTTP/1.1 431"
    assert line.split()[1] == status
    assert answer(url) == b"HTTP/1.1 101 Switching Protocols"


def test_an_expired_token_is_unknown(ask_url, counts):
    if counts(1, 2) == 1:
        pytest.skip("it lives for a minute: under `make prove`")
    url = ask_url()
    time.sleep(61)
    assert answer(url) == b"HTTP/1.1 404 Not Found"


def test_clients_that_send_a_byte_and_then_wait_hold_up_nobody(ask_url, daemon, counts):
    before = _resident_bytes(daemon.pid)
    url = ask_url()
    with ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection((url.hostname, url.port), timeout=30))
            for _ in range(counts(200, 900))
        ]
        for connection in slow:
            connection.sendall(b"P")
        assert answer(ask_url()) == b"HTTP/1.1 101 Switching Protocols"
        assert _resident_bytes(daemon.pid) - before < 64 << 20
        if counts(1, 2) == 2:  # ten seconds later each has been told and closed
            assert {connection.recv(100).split(b"\r\n")[0] for connection in slow} == {
                b"HTTP/1.1 408 Request Timeout"
            }
    assert answer(ask_url()) == b"HTTP/1.1 101 Switching Protocols"


def _resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
