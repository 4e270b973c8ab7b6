"""The command that forwards a port: when it is there, what it is given, what it says."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
import trio
from noded_gvisor.plugin import RunscOptions, quirks_of

from noded.errors import DeadlineExceeded, NotFound
from noded.model.paths import Layout
from noded.model.runtime import RuntimeHost
from noded.runtimes.command import CommandLine
from noded.runtimes.features import features_from_table, parse_version
from noded.runtimes.forward import Forwards, arguments, new_limiter, refused
from tests.support.hosts import PLAIN_HOST


def test_the_command_is_given_socket_task_and_port():
    assert list(arguments("forward-1", "a" * 64, 8080)) == ["--stream=forward-1", "a" * 64, "8080"]


@pytest.mark.parametrize(
    ("network", "output", "able"),
    [
        ("sandbox", "runsc version release-20260824.0\nspec: 1.2.0\n", True),
        ("", "runsc version 0.0~20260905.0\nspec: 1.2.0\n", True),
        ("sandbox", "runsc version 0.0~20221219.0\nspec: 1.0.2-dev\n", False),
        ("sandbox", "runsc version release-20260817.0-5-g1234567\n", False),
        # It has the verb, but a forwarded connection can end its pod.
        ("sandbox", "runsc version 0.0~20240729.0\nspec: 1.2.0\n", False),
        ("sandbox", "runsc version VERSION_MISSING\n", False),
        # The pod's own stack needs none, and without a network runsc refuses.
        ("host", "runsc version release-20260905.0\n", False),
        ("none", "runsc version release-20260905.0\n", False),
    ],
)
def test_runsc_forwards_since_a_release_and_into_its_own_stack(tmp_path, network, output, able):
    host = RuntimeHost(PLAIN_HOST, Layout(root=tmp_path / "root", state=tmp_path / "state"))
    quirks = quirks_of("gvisor", RunscOptions(network=network), host)
    version, _ = parse_version(output)
    assert features_from_table(version, quirks.features, quirks).forwards is able


@pytest.mark.parametrize(
    ("words", "so"),
    [
        (
            b"doStream: PortForward: port forwarding to sandbox: creating netstack port forward connection: "
            b"connecting endpoint: connection was refused\n",
            True,
        ),
        (b"... dial tcp 127.0.0.1:80: connect: connection refused", True),
        (b"loading container: file does not exist", False),
        (b"\xff\xfe", False),
        (b"", False),
    ],
)
def test_a_refused_connection_is_told_from_other_failures(words, so):
    assert refused(words) is so


# The command, played by a program that does with the socket what runsc does.

RUNTIME = """#!{python}
import signal, socket, sys
mode, (stream, task, port) = {mode!r}, sys.argv[-3:]
if mode == "hang":
    open("../started", "w").close()
    signal.pause()
connection = socket.socket(socket.AF_UNIX)
connection.connect(stream.removeprefix("--stream="))
if mode == "refuse":
    sys.exit("connecting endpoint: connection was refused")
if mode == "fail":
    sys.exit("loading container: file does not exist")
connection.sendall(f"{{task}} {{port}}".encode())
"""


@pytest.fixture
def forwards(tmp_path):
    """forwards(mode) -> what opens connections with such a program; looks at what is left in the end."""
    bundle, before = tmp_path / "bundle", len(os.listdir("/proc/self/fd"))
    bundle.mkdir()
    (bundle / "forwards").write_text("1")

    def with_mode(mode: str) -> Forwards:
        program = tmp_path / "runtime"
        program.write_text(RUNTIME.format(python=sys.executable, mode=mode))
        program.chmod(0o755)
        return Forwards(CommandLine(str(program), "", frozenset(), (), (), {}), "demo", new_limiter())

    yield with_mode
    assert [path.name for path in bundle.iterdir()] == ["forwards"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_connection_is_what_the_command_has_handed_over(forwards, tmp_path):
    fd = trio.run(forwards("connect").open, "task", tmp_path / "bundle", 80)
    assert not os.get_blocking(fd)
    with socket.socket(fileno=fd) as connection:
        connection.setblocking(True)
        assert connection.recv(100) == b"task 80"
        assert connection.recv(100) == b""


@pytest.mark.parametrize(
    ("mode", "kind", "words"),
    [("refuse", ConnectionRefusedError, "refused"), ("fail", NotFound, "demo could not forward port 80")],
)
def test_what_a_failed_command_says_is_told(forwards, tmp_path, mode, kind, words):
    with pytest.raises(kind, match=words):
        trio.run(forwards(mode).open, "task", tmp_path / "bundle", 80)


def test_a_command_that_hangs_is_killed_with_its_caller(forwards, tmp_path):
    hanging = forwards("hang")

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hanging.open, "task", tmp_path / "bundle", 80)
            while not (tmp_path / "started").exists():  # noqa: ASYNC110 # another process makes it
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert not [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(tmp_path / "runtime").encode() in _bytes_of(path)
    ]


def test_a_command_that_takes_too_long_is_killed(forwards, tmp_path, monkeypatch):
    monkeypatch.setattr("noded.runtimes.forward._COMMAND_SECONDS", 0.1)
    with pytest.raises(DeadlineExceeded, match="port-forward"):
        trio.run(forwards("hang").open, "task", tmp_path / "bundle", 80)


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
