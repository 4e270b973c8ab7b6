"""exec, attach and port-forward as crictl speaks them, over both transports."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import subprocess
import time
import urllib.request

import pytest

from tests.support.processes import read_bytes_until

pytestmark = [pytest.mark.root, pytest.mark.one_daemon]


def test_output_error_output_and_exit_code_arrive(start, run_crictl, transport, handler):
    _, container = start("sleep", "1000", handler=handler)
    done = run_crictl("exec", "-r", transport, container, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert done.stdout == b"out\n"
    assert b"err\n" in done.stderr
    assert b"7" in done.stderr
    assert done.returncode != 0


def test_input_reaches_the_command_and_its_end_too(start, run_crictl, transport, handler):
    _, container = start("sleep", "1000", handler=handler)
    done = run_crictl("exec", "-i", "-r", transport, container, "cat", input=b"some input\n")
    assert (done.returncode, done.stdout) == (0, b"some input\n"), done.stderr


def test_a_command_that_is_missing_is_named(start, run_crictl, transport):
    _, container = start("sleep", "1000")
    done = run_crictl("exec", "-r", transport, container, "no-such-program")
    assert done.returncode != 0
    assert b"no-such-program" in done.stderr


def test_a_terminal_has_job_control_size_and_one_output(start, crictl, daemon, transport, handler):
    _, container = start("sleep", "1000", handler=handler)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [crictl, "--runtime-endpoint", daemon.address, "exec", "-i", "-t", "-r", transport, container, "sh"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    try:
        # The job itself says that it runs: a ^C before would be one for the shell.
        os.write(master, b"tty; sh -c 'echo to-stderr >&2; exec sleep 1000'\n")
        seen = read_bytes_until(master, b"to-stderr\r\n")
        assert b"/dev/pts/" in seen
        os.write(master, b"\x03")  # ^C ends sleep, not the shell
        os.write(master, b"echo status $?; exit 3\n")
        assert b"status 130" in read_bytes_until(master, b"status 130")
        assert process.wait(20) != 0
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_attach_carries_input_and_output(start, run_crictl, crictl, daemon, transport, handler):
    _, container = start("sh", "-c", "while read line; do echo got $line; done", handler=handler, stdin=True)
    process = subprocess.Popen(
        [crictl, "--runtime-endpoint", daemon.address, "attach", "-i", "-r", transport, container],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        # crictl attaches some time after its start; the container answers each line it gets.
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        assert read_bytes_until(process.stdout.fileno(), b"got hello\n")
    finally:
        process.kill()
        process.wait()


def test_a_port_is_forwarded(start, crictl, daemon, transport, handler):
    pod, _ = start("httpd", "-f", "-p", "8080", "-h", "/www", handler=handler)
    with Forward(crictl, daemon, transport, pod, 8080) as forward:
        for _ in range(5):
            assert forward.get() == b"a web server in a pod\n"


def test_a_port_of_a_host_network_pod_is_forwarded(start, crictl, daemon, transport):
    pod, _ = start("httpd", "-f", "-p", "18080", "-h", "/www", network="NODE")
    with Forward(crictl, daemon, transport, pod, 18080) as forward:
        assert forward.get() == b"a web server in a pod\n"


def test_a_port_on_ipv6_alone_is_forwarded(start, crictl, daemon, transport):
    pod, _ = start("httpd", "-f", "-p", "[::1]:8080", "-h", "/www")
    with Forward(crictl, daemon, transport, pod, 8080) as forward:
        assert forward.get() == b"a web server in a pod\n"


def test_much_output_arrives_whole(start, run_crictl, transport, counts):
    megabytes = counts(40, 200)
    _, container = start("sleep", "1000")
    command = f"dd if=/dev/urandom of=/tmp/big bs=1M count={megabytes} 2>/dev/null; sha256sum /tmp/big"
    wanted = run_crictl("exec", container, "sh", "-c", command).stdout.split()[0].decode()
    began = time.monotonic()
    done = run_crictl("exec", "-r", transport, container, "cat", "/tmp/big")
    print(f"{transport}: {megabytes} MB out in {time.monotonic() - began:.2f} s")
    assert len(done.stdout) == megabytes << 20
    assert hashlib.sha256(done.stdout).hexdigest() == wanted


def test_much_input_arrives_whole(start, run_crictl, transport, counts):
    data = os.urandom(1 << 20) * counts(40, 200)
    _, container = start("sleep", "1000")
    began = time.monotonic()
    done = run_crictl("exec", "-i", "-r", transport, container, "sha256sum", input=data)
    print(f"{transport}: {len(data) >> 20} MB in in {time.monotonic() - began:.2f} s")
    assert done.stdout.split()[:1] == [hashlib.sha256(data).hexdigest().encode()], done.stderr


def test_many_clients_attach_to_one_container(start, crictl, daemon, transport):
    _, container = start("sh", "-c", "while read line; do echo got $line; done", stdin=True)
    attached = [
        subprocess.Popen(
            [crictl, "--runtime-endpoint", daemon.address, "attach", "-i", "-r", transport, container],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for _ in range(5)
    ]
    try:
        for process in attached:  # each is attached once it has got an answer to its own line
            process.stdin.write(f"{process.pid}\n".encode())
            process.stdin.flush()
            read_bytes_until(process.stdout.fileno(), f"got {process.pid}\n".encode())
        attached[0].stdin.write(b"for all\n")
        attached[0].stdin.flush()
        for process in attached:
            read_bytes_until(process.stdout.fileno(), b"got for all\n")
    finally:
        for process in attached:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def test_many_bytes_pass_a_forwarded_port_whole(start, run_crictl, crictl, daemon, transport, counts):
    megabytes = counts(20, 200)
    pod, container = start("sh", "-c", "mkdir /srv; exec httpd -f -p 8080 -h /srv")
    command = f"dd if=/dev/urandom of=/srv/big bs=1M count={megabytes} 2>/dev/null; sha256sum /srv/big"
    wanted = run_crictl("exec", container, "sh", "-c", command).stdout.split()[0].decode()
    with Forward(crictl, daemon, transport, pod, 8080) as forward:
        began = time.monotonic()
        data = forward.get("/big")
        print(f"{transport}: {megabytes} MB through a port in {time.monotonic() - began:.2f} s")
    assert hashlib.sha256(data).hexdigest() == wanted


def test_many_commands_run_at_once(start, crictl, daemon, transport, counts):
    _, container = start("sleep", "1000")
    command = [crictl, "--runtime-endpoint", daemon.address, "--timeout", "60s", "exec", "-r", transport]
    running = [
        subprocess.Popen([*command, container, "echo", str(number)], stdout=subprocess.PIPE)
        for number in range(counts(20, 200))
    ]
    for number, process in enumerate(running):
        out, _ = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, f"{number}\n".encode())


class Forward:
    """A running `crictl port-forward`."""

    def __init__(self, crictl, daemon, transport, pod, port):
        self._process = subprocess.Popen(
            [crictl, "--runtime-endpoint", daemon.address, "port-forward", "-r", transport, pod, f":{port}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        said = read_bytes_until(self._process.stdout.fileno(), b" -> ")
        self.url = "http://" + re.search(rb"127\.0\.0\.1:\d+", said)[0].decode()
        return self

    def get(self, path="/"):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.url + path, timeout=60) as answer:
            return answer.read()

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
