"""The Python client of Kubernetes opens streams with websocket-client; so does this."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from urllib.parse import urlencode

import pytest

websocket = pytest.importorskip("websocket", reason="needs websocket-client")

pytestmark = pytest.mark.root

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255


@pytest.fixture(params=["v4.channel.k8s.io", "v5.channel.k8s.io"])
def protocol(request):
    return request.param


@pytest.fixture
def connect(api):
    """connect(pod, kind, protocol, **query) -> an open socket."""
    opened = []

    def open_one(pod, kind, protocol, **query):
        url = f"{api.url.replace('http', 'ws')}/api/v1/namespaces/default/pods/{pod}/{kind}?"
        made = websocket.create_connection(
            url + urlencode(query, doseq=True),
            subprotocols=[protocol],
            timeout=60,
            http_no_proxy=["127.0.0.1"],
        )
        assert made.subprotocol == protocol
        opened.append(made)
        return made

    yield open_one
    for one in opened:
        one.close()


def test_a_command_gives_its_streams_and_its_status(connect, web, protocol):
    script = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    client = connect(web, "exec", protocol, command=script, stdout=1, stderr=1)
    said = read_all(client)
    assert (said[STDOUT], said[STDERR]) == (b"out\n", b"err\n")
    status = json.loads(said[ERROR])
    assert status["status"] == "Failure"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


def test_success_is_a_status_too(connect, web, protocol):
    said = read_all(connect(web, "exec", protocol, command=["true"], stdout=1))
    assert json.loads(said[ERROR])["status"] == "Success"


def test_input_reaches_the_command(connect, web, protocol):
    client = connect(web, "exec", protocol, command=["head", "-n", "1"], stdin=1, stdout=1)
    client.send_binary(bytes([STDIN]) + b"one line\n")
    assert read_all(client)[STDOUT] == b"one line\n"


def test_the_fifth_version_can_end_the_input_alone(connect, web):
    command = ["sh", "-c", "cat; echo end"]
    client = connect(web, "exec", "v5.channel.k8s.io", command=command, stdin=1, stdout=1)
    client.send_binary(bytes([STDIN]) + b"text\n")
    client.send_binary(bytes([CLOSE, STDIN]))
    assert read_all(client)[STDOUT] == b"text\nend\n"


def test_a_terminal_is_resized(connect, web, protocol):
    command = ["sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do usleep 20000; done"]
    client = connect(web, "exec", protocol, command=command, stdin=1, stdout=1, tty=1)
    read_until(client, b"ready")
    client.send_binary(bytes([RESIZE]) + b'{"Width": 91, "Height": 19}')
    read_until(client, b"19 91")


def test_much_data_arrives_whole(connect, web, protocol, counts):
    make = f"dd if=/dev/urandom of=/tmp/sent bs=1M count={counts(10, 200)} 2>/dev/null"
    script = f"{make}; cat /tmp/sent; sha256sum /tmp/sent >&2"
    client = connect(web, "exec", protocol, command=["sh", "-c", script], stdout=1, stderr=1)
    began = time.monotonic()
    said = read_all(client)
    print(f"{protocol}: {len(said[STDOUT]) >> 20} MB in {time.monotonic() - began:.2f} s")
    assert hashlib.sha256(said[STDOUT]).hexdigest().encode() == said[STDERR].split()[0]


def test_the_oldest_form_speaks_base64(connect, web):
    client = connect(web, "exec", "base64.channel.k8s.io", command=["echo", "out"], stdout=1)
    said = b""
    while (frame := client.recv_data()) and frame[0] in (websocket.ABNF.OPCODE_TEXT,):
        if frame[1][:1] == b"1":
            said += base64.b64decode(frame[1][1:])
    assert said == b"out\n"


def test_a_client_that_falls_silent_in_the_middle_leaves_no_command(connect, web, cri, api):
    command = ["sh", "-c", "echo ready; sleep 8642"]
    client = connect(web, "exec", "v5.channel.k8s.io", command=command, stdin=1, stdout=1, tty=1)
    read_until(client, b"ready")
    client.sock.close()  # no closing handshake
    wait = "while ps | grep -q '[s]leep 8642'; do usleep 20000; done"
    assert cri.exec(api.pods[web][1], "sh", "-c", wait, seconds=20).exit_code == 0


def read_all(client):
    """What every channel said until the server closed."""
    said = {channel: bytearray() for channel in range(5)}
    while True:
        kind, data = client.recv_data()
        if kind == websocket.ABNF.OPCODE_CLOSE:
            return said
        said[data[0]] += data[1:]


def read_until(client, wanted):
    seen = b""
    while wanted not in seen:
        kind, data = client.recv_data()
        assert kind == websocket.ABNF.OPCODE_BINARY, seen
        seen += data[1:] if data[:1] == bytes([STDOUT]) else b""
