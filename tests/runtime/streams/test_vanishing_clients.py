"""Clients that vanish, guess, come twice or come late leave nothing behind."""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest

from tests.support.oracle import Oracle

pytestmark = pytest.mark.root

# Each says that it runs; the first three end for want of streams, the last only by the hang-up.
COMMANDS = (
    ("echo ready; cat", False),
    ("echo ready; yes", False),
    ("echo ready; cat; echo late", False),
    ("echo ready; sleep 1000", True),
    ("trap '' INT; echo ready; while :; do sleep 1; done", True),
)


class Client:
    """A crictl exec that can be killed in the middle."""

    def __init__(self, crictl, daemon, transport, container, command, *, tty):
        flags = ["-i", "-t"] if tty else ["-i"]
        if tty:
            self._ours, theirs = pty.openpty()
            streams = {"stdin": theirs, "stdout": theirs}
        else:
            self._input = os.pipe()
            self._ours, theirs = os.pipe()
            streams = {"stdin": self._input[0], "stdout": theirs}
        self._tty = tty
        self.process = subprocess.Popen(
            [
                *(crictl, "--runtime-endpoint", daemon.address, "exec"),
                *(*flags, "-r", transport, container, "sh", "-c", command),
            ],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **streams,
        )
        os.close(theirs)

    def wait_ready(self):
        seen, deadline = b"", time.monotonic() + 30
        while b"ready" not in seen:
            assert select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]
            seen += os.read(self._ours, 4096)

    def vanish(self):
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        if not self._tty:
            os.close(self._input[0])
            os.close(self._input[1])


def zombies_of(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == pid:
            found.append(path.parent.name)
    return found


def eventually(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_vanishing_clients_leave_nothing(start, run_crictl, crictl, daemon, transport, handler, counts, rng):
    _, container = start("sleep", "1000", handler=handler)
    run_crictl("exec", container, "true")
    oracle = Oracle(daemon)
    before = oracle.take()
    left = counts(15, 100)
    while left:
        count = min(5, left)
        left -= count
        clients = []
        with ExitStack() as stack:
            for _ in range(count):
                command, tty = rng.choice(COMMANDS)
                client = Client(crictl, daemon, transport, container, command, tty=tty)
                stack.callback(client.vanish)
                clients.append(client)
            for client in clients:
                if rng.random() < 0.7:  # others vanish in the middle of the start
                    client.wait_ready()
    oracle.assert_unchanged(before, settle_seconds=20)
    assert zombies_of(daemon.pid) == []


def test_a_command_without_a_terminal_may_finish_and_is_reaped(start, run_crictl, crictl, daemon, transport):
    _, container = start("sleep", "1000")
    client = Client(
        crictl, daemon, transport, container, "echo ready; cat; sleep 1; touch /tmp/finished", tty=False
    )
    client.wait_ready()
    client.vanish()
    eventually(lambda: run_crictl("exec", "-s", container, "ls", "/tmp/finished").returncode == 0)
    eventually(lambda: zombies_of(daemon.pid) == [])


def test_a_stopping_daemon_ends_streams_and_hangs_terminals_up(start, crictl, daemon, cri, transport):
    _, container = start("sleep", "1000")
    client = Client(crictl, daemon, transport, container, "echo ready; sleep 1234", tty=True)
    client.wait_ready()
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
    assert client.process.wait(10) != 0
    client.vanish()
    daemon.start()
    with daemon.client() as again:
        again.stop("0" * 64)
        assert b"1234" not in again.exec(container, "ps").stdout


def test_removing_a_container_ends_its_streams(start, crictl, daemon, cri, transport):
    pod, container = start("sleep", "1000")
    client = Client(crictl, daemon, transport, container, "echo ready; sleep 1234", tty=True)
    client.wait_ready()
    cri.remove(container)
    client.process.wait(20)
    client.vanish()
    cri.remove_pod(pod)
    eventually(lambda: zombies_of(daemon.pid) == [])


def test_a_stopped_client_holds_up_no_more_than_its_own_command(start, run_crictl, crictl, daemon, transport):
    _, container = start("sleep", "1000")
    client = Client(crictl, daemon, transport, container, "echo ready; yes", tty=False)
    client.wait_ready()
    client.process.send_signal(signal.SIGSTOP)
    size = daemon_rss(daemon)
    for _ in range(5):
        assert run_crictl("exec", container, "echo", "hi").stdout == b"hi\n"
    assert daemon_rss(daemon) - size < 20 << 20
    client.vanish()


def daemon_rss(daemon):
    pages = int(Path(f"/proc/{daemon.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE")


def test_requests_that_make_no_sense_are_refused_before_a_url(start, cri):
    pod, container = start("sleep", "1000")
    pb, runtime = cri.pb, cri.runtime
    invalid, missing = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
    cases = [
        (runtime.Exec, pb.ExecRequest(container_id=container, cmd=["x"]), invalid),
        (runtime.Exec, pb.ExecRequest(container_id=container, stdout=True), invalid),
        (
            runtime.Exec,
            pb.ExecRequest(container_id=container, cmd=["x"], tty=True, stdout=True, stderr=True),
            invalid,
        ),
        (runtime.Exec, pb.ExecRequest(container_id="0" * 64, cmd=["x"], stdout=True), missing),
        (runtime.Attach, pb.AttachRequest(container_id=container), invalid),
        (runtime.PortForward, pb.PortForwardRequest(pod_sandbox_id="0" * 64), missing),
        (runtime.PortForward, pb.PortForwardRequest(pod_sandbox_id=pod, port=[70000]), invalid),
    ]
    for call, request, code in cases:
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=20)
        assert caught.value.code() is code, request
    cri.stop(container)
    cri.stop_pod(pod)
    for call, request in (
        (runtime.Exec, pb.ExecRequest(container_id=container, cmd=["x"], stdout=True)),
        (runtime.Attach, pb.AttachRequest(container_id=container, stdout=True)),
        (runtime.PortForward, pb.PortForwardRequest(pod_sandbox_id=pod)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request, timeout=20)
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION, request


def test_a_url_works_once(start, cri):
    _, container = start("sleep", "1000")
    request = cri.pb.ExecRequest(container_id=container, cmd=["true"], stdout=True)
    url = cri.runtime.Exec(request, timeout=20).url
    assert url.startswith("http://127.0.0.1:")
    host, port = url.split("/")[2].split(":")
    path = "/" + url.split("/", 3)[3]
    upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"

    def ask(target):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(f"POST {target} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
            return connection.recv(100).split(b"\r\n")[0]

    assert ask(path[:-2]) == b"HTTP/1.1 404 Not Found"
    assert ask(path) == b"HTTP/1.1 101 Switching Protocols"
    assert ask(path) == b"HTTP/1.1 404 Not Found"
