"""The official Python client of Kubernetes: exec, attach and port-forward, all over WebSocket."""

from __future__ import annotations

import hashlib
import http.client
import json
from contextlib import contextmanager

import pytest

pytest.importorskip(
    "kubernetes", reason="THE PACKAGE kubernetes IS NOT INSTALLED: the Python client was not tried"
)

from kubernetes import client
from kubernetes.stream import portforward, stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, RESIZE_CHANNEL

pytestmark = pytest.mark.root

NAMESPACE = "default"
STEP_SECONDS = 1  # that one look at the socket may take


@pytest.fixture(scope="module")
def core(api):
    """The client's API of pods, at our server."""
    configuration = client.Configuration(host=api.url)
    configuration.proxy = None
    with client.ApiClient(configuration) as connection:
        yield client.CoreV1Api(connection)


@pytest.fixture
def execute(core):
    """execute(pod, *command, **options) -> an open stream."""

    def run(pod, *command, **options):
        wanted = {"stdin": False, "stdout": True, "stderr": True, "tty": False, "binary": True, **options}
        return stream(
            core.connect_get_namespaced_pod_exec,
            pod,
            NAMESPACE,
            command=list(command),
            _preload_content=False,
            **wanted,
        )

    return run


def read_until(opened, wanted):
    seen = b""
    while wanted not in seen:
        assert opened.is_open(), seen
        opened.update(timeout=STEP_SECONDS)
        if opened.peek_stdout():
            seen += opened.read_stdout()
    return seen


def test_a_command_gives_its_streams_and_its_exit_code(execute, web):
    done = execute(web, "sh", "-c", "echo out; echo err >&2; exit 7")
    done.run_forever(timeout=30)
    assert (done.read_stdout(), done.read_stderr()) == (b"out\n", b"err\n")
    assert done.returncode == 7


def test_success_and_a_missing_program_are_told_apart(execute, web):
    done = execute(web, "true")
    done.run_forever(timeout=30)
    assert done.returncode == 0
    done = execute(web, "no-such-program")
    done.run_forever(timeout=30)
    status = json.loads(done.read_channel(ERROR_CHANNEL))
    assert status["status"] == "Failure"
    assert "no-such-program" in status["message"]


def test_input_reaches_the_command(execute, web):
    running = execute(web, "head", "-n", "2", stdin=True)
    running.write_stdin(b"one\n")
    running.write_stdin(b"two\n")
    assert read_until(running, b"two\n") == b"one\ntwo\n"
    running.run_forever(timeout=30)
    assert running.returncode == 0


def test_a_terminal_is_resized(execute, web):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do usleep 20000; done"
    running = execute(web, "sh", "-c", script, stdin=True, stderr=False, tty=True)
    read_until(running, b"ready")
    running.write_channel(RESIZE_CHANNEL, json.dumps({"Width": 91, "Height": 19}))
    read_until(running, b"19 91")
    running.close()


def test_attach_carries_input_and_output(core, start):
    pod, _ = start("sh", "-c", "while read line; do echo got $line; done", stdin=True)
    attached = stream(
        core.connect_get_namespaced_pod_attach,
        pod,
        NAMESPACE,
        stdin=True,
        stdout=True,
        stderr=True,
        tty=False,
        binary=True,
        _preload_content=False,
    )
    attached.write_stdin(b"hello\n")
    assert read_until(attached, b"got hello\n") == b"got hello\n"
    attached.close()


def test_much_output_arrives_whole(execute, web, counts):
    # The client joins all that it has of a channel anew for each frame: more takes it minutes.
    megabytes = counts(5, 20)
    make = f"dd if=/dev/urandom of=/tmp/python bs=1M count={megabytes} 2>/dev/null"
    running = execute(web, "sh", "-c", f"{make}; cat /tmp/python; sha256sum /tmp/python >&2; rm /tmp/python")
    digest, size = hashlib.sha256(), 0
    while running.is_open():
        running.update(timeout=STEP_SECONDS)
        if running.peek_stdout():
            data = running.read_stdout()
            digest.update(data)
            size += len(data)
    assert size == megabytes << 20
    assert digest.hexdigest().encode() == running.read_stderr().split()[0]


@contextmanager
def forwarded(core, pod, port):
    """HTTP over a forwarded port: a connection whose socket is the client's."""
    forward = portforward(core.connect_get_namespaced_pod_portforward, pod, NAMESPACE, ports=str(port))
    connection = http.client.HTTPConnection("pod", port)
    connection.sock = forward.socket(port)
    connection.sock.setblocking(True)
    try:
        yield connection, forward
    finally:
        connection.close()
        forward.close()


def test_a_port_is_forwarded_and_much_passes_it_whole(core, web, cri, api, counts):
    megabytes = counts(10, 200)
    command = f"dd if=/dev/urandom of=/srv/python bs=1M count={megabytes} 2>/dev/null; sha256sum /srv/python"
    wanted = cri.exec(api.pods[web][1], "sh", "-c", command).stdout.split()[0].decode()
    with forwarded(core, web, 80) as (connection, _):
        connection.request("GET", "/index.html")
        assert connection.getresponse().read() == b"hello\n"
    with forwarded(core, web, 80) as (connection, _):
        connection.request("GET", "/python")
        assert hashlib.sha256(connection.getresponse().read()).hexdigest() == wanted


def test_a_port_that_nobody_serves_is_said_to_be_refused(core, web):
    with forwarded(core, web, 81) as (connection, forward):
        assert connection.sock.recv(1) == b""
        assert "81" in forward.error(81)
