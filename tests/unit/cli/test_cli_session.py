"""The client's end of a session, without a daemon: framing against the server's, exit codes, names."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli import find, grammar
from noded.cli.run import container_config, sandbox_config
from noded.cli.session import exit_code, terminal_size
from noded.errors import Internal, InvalidArgument, NotFound
from noded.proto.runtime import v1 as cri
from noded.wire import channels
from noded.wire.websocket import CloseCode, Closed, Piece, WebSocket, WebSocketError


def joined(events) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, Piece))


@given(
    st.lists(st.binary(max_size=70000), max_size=4), st.binary(min_size=4, max_size=4), st.integers(1, 5000)
)
def test_a_client_and_a_server_understand_each_other(messages, key, step):
    client, server = WebSocket(masking_key=lambda: key), WebSocket()
    for sender, receiver in ((client, server), (server, client)):
        for message in messages:
            sender.send(message[:1], message[1:])
        stream = b"".join(sender.take())
        got = b"".join(joined(receiver.receive(stream[at : at + step])) for at in range(0, len(stream), step))
        assert got == b"".join(messages)
    client.close(CloseCode.NORMAL, "done")
    assert server.receive(b"".join(client.take())) == [Closed(1000, "done")]
    assert client.receive(b"".join(server.take())) == [Closed(1000, "")]


def test_a_server_that_masks_is_refused():
    one, other = WebSocket(masking_key=lambda: b"abcd"), WebSocket(masking_key=lambda: b"abcd")
    one.send(b"x")
    with pytest.raises(WebSocketError, match="masked"):
        other.receive(b"".join(one.take()))


@pytest.mark.parametrize("code", [0, 1, 137, 255])
def test_the_exit_code_comes_back_from_what_the_daemon_says(code):
    assert exit_code(channels.exit_status("v5.channel.k8s.io", code)) == code


def test_a_command_that_could_not_run_is_the_daemons_words():
    with pytest.raises(Internal, match="no such program"):
        exit_code(channels.error_status("v5.channel.k8s.io", "no such program"))
    with pytest.raises(Internal, match="without an exit code"):
        exit_code(b"")


def test_an_object_is_found_by_id_name_or_start():
    names = {"aa11": "default/web", "ab22": "kube-system/web", "ac33": "default/db"}
    assert find.choose("aa11", names, "pod") == "aa11"
    assert find.choose("kube-system/web", names, "pod") == "ab22"
    assert find.choose("db", names, "pod") == "ac33"
    assert find.choose("ac", names, "pod") == "ac33"
    with pytest.raises(InvalidArgument, match="start of the id of 3 pods"):
        find.choose("a", names, "pod")
    with pytest.raises(InvalidArgument, match="the name of 2 pods"):
        find.choose("web", names, "pod")
    for nothing in ("x", ""):
        with pytest.raises(NotFound, match="no pod"):
            find.choose(nothing, names, "pod")


def test_the_command_of_run_and_exec_keeps_its_options():
    parsed = grammar.parser().parse_args(["run", "-it", "-e", "A=b=c", "img", "sh", "-c", "x --y", "--rm"])
    assert (parsed.stdin, parsed.tty, parsed.rm) == (True, True, True)
    made = container_config(parsed, "sha256:1")
    assert (made.command, made.args) == (["sh"], ["-c", "x --y", "--rm"])
    assert made.envs == [cri.KeyValue(key="A", value=b"b=c")]
    assert container_config(grammar.parser().parse_args(["run", "img"]), "sha256:1").command == []
    parsed = grammar.parser().parse_args(["exec", "c", "ls", "-l", "--debug"])
    assert (parsed.command_name, parsed.arguments) == ("ls", ["-l", "--debug"])


def test_the_pod_of_run_has_a_slice_without_dashes_under_systemd():
    parsed = grammar.parser().parse_args(["run", "--host-network", "img"])
    assert sandbox_config(parsed, systemd=True).linux.cgroup_parent == "nodedrun.slice"
    pod = sandbox_config(parsed, systemd=False)
    assert pod.linux.cgroup_parent == "/noded-run"
    assert pod.linux.security_context.namespace_options.network == cri.NamespaceMode.NODE


def test_the_size_of_the_terminal_is_that_of_standard_input(monkeypatch):
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
        with open(theirs, closefd=False) as terminal:
            monkeypatch.setattr(sys, "stdin", terminal)
            (size,) = channels.ResizeParser().receive(terminal_size())
            assert (size.width, size.height) == (77, 33)
    finally:
        os.close(ours)
        os.close(theirs)
