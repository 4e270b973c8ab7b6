"""Connections to the loopback of gVisor's own network stack, which only runsc can reach."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from noded.testing import HandlerCase, TestNode
from noded.testing.acceptance import ECHO_SERVER, echo_request
from noded.testing.node import eventually
from tests.support.processes import read_bytes_until
from tests.support.runsc import need_runsc_that_forwards, own_root

pytestmark = pytest.mark.root

TOML = 'type = "runsc"\nplatform = "ptrace"\nnetwork = "sandbox"\npath = "{}"\n'


class Gvisor:
    """A noded with one pod: on port 8080 of the loopback alone what is posted comes back."""

    def __init__(self, node: TestNode, commands: Path) -> None:
        self.node = node
        self._commands = commands
        self.pod = node.run_pod("gvisor")
        self.server = self.pod.run(ECHO_SERVER)
        self.listens("0100007F:1F90")

    def listens(self, address: str) -> None:
        table = "cat /proc/net/tcp /proc/net/tcp6"
        eventually(lambda: address.encode() in self.server.exec(table).stdout, 20, f"{address} listens")

    @property
    def commands(self) -> list[str]:
        """The runtime's commands that forward."""
        return [line for line in self._commands.read_text().splitlines() if " port-forward " in line]

    def answers(self) -> None:
        with self.pod.forward(8080) as session:
            session.send(0, b"GET /nowhere HTTP/1.0\r\n\r\n")
            session.until(0, b"404 Not Found")

    def left(self) -> dict[str, object]:
        """What a forwarded connection can leave: descriptors, processes, files."""
        sentry = [pid for pid, words in _processes() if "boot" in words and self.pod.id in words]
        assert len(sentry) == 1, sentry
        return {
            "of noded": len(os.listdir(f"/proc/{self.node.pid}/fd")),
            # It keeps descriptors of files that it has looked at: only sockets are counted.
            "of the sentry": sum(map(_is_socket, Path(f"/proc/{sentry[0]}/fd").iterdir())),
            "commands": gvisor_commands(),
            "files": [path.name for path in self.node.state.rglob("forward-*")],
            "inside": self.server.exec("busybox ps -o args | busybox grep -c '[c]at$'").stdout,
        }


def _is_socket(descriptor: Path) -> bool:
    try:
        return os.readlink(descriptor).startswith("socket:")
    except OSError:
        return False


def _processes() -> list[tuple[int, list[str]]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((int(path.parent.name), path.read_text(errors="replace").split("\0")))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def gvisor(tmp_path_factory):
    program, directory = need_runsc_that_forwards(), tmp_path_factory.mktemp("runsc")
    wrapper, commands = directory / "runsc", directory / "commands"
    wrapper.write_text(
        f'#!/bin/sh\necho "$@" >>{shlex.quote(str(commands))}\nexec {shlex.quote(program)} "$@"\n'
    )
    wrapper.chmod(0o755)
    with (
        own_root(directory / "root") as root,
        TestNode([HandlerCase("gvisor", TOML.format(wrapper) + root)]) as node,
    ):
        made = Gvisor(node, commands)
        yield made
        made.pod.remove()


def test_ten_megabytes_pass_in_both_directions(gvisor):
    sent = random.Random(10).randbytes(10_000_000)
    with gvisor.pod.forward(8080) as session:
        session.send(0, echo_request(len(sent)))
        for at in range(0, len(sent), 50_000):
            session.send(0, sent[at : at + 50_000])
            session.more_bytes(0, at - 200_000)
        session.until(0, sent[-100:], 60)
        answer = session.seen[0].partition(b"\r\n\r\n")[2]
    assert hashlib.sha256(answer).hexdigest() == hashlib.sha256(sent).hexdigest()
    assert gvisor.server.running


def test_twenty_connections_at_once_do_not_mix(gvisor):
    before = gvisor.left()
    with ExitStack() as stack:
        sessions = [stack.enter_context(gvisor.pod.forward(8080)) for _ in range(20)]
        bodies = [random.Random(index).randbytes(40_000) for index in range(20)]
        for session, body in zip(sessions, bodies, strict=True):
            session.send(0, echo_request(len(body)) + body[:20_000])
        for session, body in zip(sessions, bodies, strict=True):
            session.send(0, body[20_000:])
        for session, body in zip(sessions, bodies, strict=True):
            session.until(0, body[-100:])
            assert session.seen[0].endswith(b"\r\n\r\n" + body)
    eventually(lambda: gvisor.left() == before, 20, f"as before: {before}, not {gvisor.left()}")


def test_clients_that_vanish_leave_nothing(gvisor, counts):
    gvisor.answers()
    before = gvisor.left()
    for _ in range(counts(10, 100)):
        with gvisor.pod.forward(8080) as session:
            session.send(0, echo_request(1_000_000) + b"only the beginning")
            session.until(0, b"the beginning")
    eventually(lambda: gvisor.left() == before, 20, f"as before: {before}, not {gvisor.left()}")
    gvisor.answers()


def test_a_port_that_nobody_serves_is_refused_in_the_usual_words(gvisor):
    with gvisor.pod.forward(8099) as session:
        said = session.until(1, b"127.0.0.1: Connection refused").decode(errors="replace")
    assert "cannot connect to port 8099 inside pod sandbox" in said
    assert f"{gvisor.pod.ip}: Connection refused" in said
    assert gvisor.left()["files"] == gvisor.left()["commands"] == []


def test_a_sandbox_of_an_older_release_is_left_alone(gvisor):
    # As if the program had been replaced since: an older sandbox could end by the request.
    (mark,) = gvisor.node.state.rglob("forwards")
    before, release = gvisor.commands, mark.read_bytes()
    mark.unlink()
    try:
        with gvisor.pod.forward(8080) as session:
            session.until(1, b"start the pod anew")
    finally:
        mark.write_bytes(release)
    assert gvisor.commands == before
    gvisor.answers()


def test_what_the_pod_s_address_serves_needs_no_command(gvisor):
    other = gvisor.pod.run("exec httpd -f -p 8090 -h /www", name="everywhere")
    gvisor.listens(":1F9A ")
    before = gvisor.commands
    with gvisor.pod.forward(8090) as session:
        session.send(0, b"GET / HTTP/1.0\r\n\r\n")
        session.until(0, b"Hello")
    assert gvisor.commands == before
    gvisor.answers()
    assert len(gvisor.commands) == len(before) + 1
    other.remove()


def test_a_client_that_leaves_while_the_sandbox_hangs_ends_the_command(gvisor):
    before = gvisor.left()
    (sentry,) = [pid for pid, words in _processes() if "boot" in words and gvisor.pod.id in words]
    os.kill(sentry, signal.SIGSTOP)
    try:
        with gvisor.pod.forward(8080):
            eventually(lambda: gvisor_commands() != [], 20, "the command waits")
        eventually(lambda: gvisor_commands() == [], 5, "it was killed")
    finally:
        os.kill(sentry, signal.SIGCONT)
    eventually(lambda: gvisor.left() == before, 20, "as before")
    gvisor.answers()


def gvisor_commands() -> list[int]:
    return [pid for pid, words in _processes() if "port-forward" in words]


def test_a_client_that_has_said_all_still_gets_the_answer(gvisor, crictl):
    # runsc ends the whole connection when it sees the end of one side.
    body = random.Random(7).randbytes(300_000)
    process = subprocess.Popen(
        [crictl, "--runtime-endpoint", gvisor.node.address, "port-forward", gvisor.pod.id, ":8080"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        said = read_bytes_until(process.stdout.fileno(), b" -> ")
        port = int(re.search(rb"127\.0\.0\.1:(\d+)", said)[1])
        with socket.create_connection(("127.0.0.1", port), 20) as client:
            client.settimeout(20)
            client.sendall(echo_request(len(body)) + body)
            client.shutdown(socket.SHUT_WR)
            answer = b""
            while data := client.recv(65536):
                answer += data
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert answer.endswith(b"\r\n\r\n" + body)
