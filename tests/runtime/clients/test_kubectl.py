"""kubectl exec, attach, cp and port-forward over SPDY and over WebSocket."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from tests.support.oracle import Oracle
from tests.support.processes import read_bytes_until

pytestmark = pytest.mark.root


def run(kubectl, *arguments, given=b""):
    process = kubectl(*arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    try:
        out, err = process.communicate(given, timeout=120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_exec_gives_output_error_output_and_the_exit_code(kubectl, web):
    done = run(kubectl, "exec", web, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout) == (7, b"out\n"), done.stderr
    assert done.stderr.startswith(b"err\n")


def test_exec_carries_input_and_its_end(kubectl, web):
    done = run(kubectl, "exec", "-i", web, "--", "sh", "-c", "cat; echo end", given=b"some input\n")
    assert (done.returncode, done.stdout) == (0, b"some input\nend\n"), done.stderr


def test_exec_of_a_missing_program_is_explained(kubectl, web):
    done = run(kubectl, "exec", web, "--", "no-such-program")
    assert done.returncode != 0
    assert b"no-such-program" in done.stderr


def test_a_terminal_has_the_size_of_the_window_and_follows_it(kubectl, web):
    master, slave = pty.openpty()
    _resize(master, 33, 77)
    # The first size may come after the command's start.
    script = "trap 'stty size' WINCH; trap 'exit 5' INT; stty size; while :; do usleep 20000; done"
    process = kubectl("exec", "-it", web, "--", "sh", "-c", script, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        read_bytes_until(master, b"33 77\r\n")
        _resize(master, 44, 99)
        process.send_signal(signal.SIGWINCH)
        read_bytes_until(master, b"44 99\r\n")
        os.write(master, b"\x03")
        read_bytes_until(master, b"exit code 5")
        assert process.wait(20) == 5
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_attach_carries_input_and_output(kubectl, start):
    name, _ = start("sh", "-c", "while read line; do echo got $line; done", stdin=True)
    process = kubectl("attach", "-i", name, stdin=PIPE, stdout=PIPE, stderr=subprocess.DEVNULL)
    try:
        process.stdin.write(b"hello\n")
        process.stdin.flush()
        read_bytes_until(process.stdout.fileno(), b"got hello\n")
    finally:
        process.kill()
        process.communicate()


def test_cp_copies_a_tree_there_and_back(kubectl, web, tmp_path, rng):
    there, back = tmp_path / "there", tmp_path / "back"
    there.mkdir()
    for number in range(20):
        (there / f"file-{number}").write_bytes(rng.randbytes(rng.randrange(300_000)))
    done = run(kubectl, "cp", str(there), f"default/{web}:/tmp/tree")
    assert done.returncode == 0, done.stderr
    done = run(kubectl, "cp", f"default/{web}:/tmp/tree", str(back))
    assert done.returncode == 0, done.stderr
    run(kubectl, "exec", web, "--", "rm", "-r", "/tmp/tree")
    assert _contents(back) == _contents(there)


def test_much_output_of_exec_arrives_whole(kubectl, web, cri, api, counts):
    megabytes = counts(20, 200)
    wanted = _make(cri, api, web, "/srv/big", megabytes)
    done = run(kubectl, "exec", web, "--", "cat", "/srv/big")
    assert len(done.stdout) == megabytes << 20
    assert hashlib.sha256(done.stdout).hexdigest() == wanted


def test_port_forward_carries_many_requests_and_much_data(kubectl, web, cri, api, counts):
    wanted = _make(cri, api, web, "/srv/big", counts(20, 200))
    with forwarded(kubectl, web, 80) as url:
        for _ in range(5):
            assert _get(f"{url}/index.html") == b"hello\n"
        assert hashlib.sha256(_get(f"{url}/big")).hexdigest() == wanted


def test_port_forward_to_a_port_that_nobody_serves_harms_no_other(kubectl, web):
    with forwarded(kubectl, web, 81) as url, pytest.raises((OSError, http.client.HTTPException)):
        _get(url)
    with forwarded(kubectl, web, 80) as url:
        assert _get(f"{url}/index.html") == b"hello\n"


def test_many_commands_run_at_once(kubectl, web, counts):
    running = [
        kubectl("exec", web, "--", "echo", str(number), stdout=PIPE) for number in range(counts(5, 40))
    ]
    for number, process in enumerate(running):
        out, _ = process.communicate(timeout=120)
        assert (process.returncode, out) == (0, f"{number}\n".encode())


def test_clients_killed_in_the_middle_leave_nothing(kubectl, web, daemon, cri, api, counts):
    """A terminal's foreground group is hung up; a command without one sees the end of its input."""
    container = api.pods[web][1]
    run(kubectl, "exec", web, "--", "true")
    oracle = Oracle(daemon)
    before = oracle.take()
    for _ in range(counts(4, 50)):
        master, slave = pty.openpty()
        shell = kubectl(
            *("exec", "-it", web, "--", "sh", "-c", "echo rea''dy; sleep 4321; :"),
            stdin=slave,
            stdout=slave,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(slave)
        command = "echo ready; cat; touch /tmp/finished"
        pipe = kubectl(*("exec", "-i", web, "--", "sh", "-c", command), stdin=PIPE, stdout=PIPE)
        read_bytes_until(master, b"ready")
        read_bytes_until(pipe.stdout.fileno(), b"ready")
        shell.kill()
        pipe.kill()
        pipe.communicate()
        shell.wait()
        os.close(master)
        wait = "until [ -e /tmp/finished ] && ! ps | grep -q '[s]leep 4321'; do usleep 20000; done"
        assert cri.exec(container, "sh", "-c", f"{wait}; rm /tmp/finished", seconds=20).exit_code == 0
    oracle.assert_unchanged(before, settle_seconds=20)


@contextmanager
def forwarded(kubectl, name, port):
    """A running port-forward to `port`; gives the URL at this end."""
    process = kubectl("port-forward", name, f":{port}", stdout=PIPE, stderr=subprocess.DEVNULL)
    try:
        said = read_bytes_until(process.stdout.fileno(), b" -> ")
        yield "http://" + re.search(rb"127\.0\.0\.1:\d+", said)[0].decode()
    finally:
        process.kill()
        process.communicate()


def _get(url):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=120) as answer:
        return answer.read()


def _make(cri, api, name, path, megabytes):
    """A file of random bytes in the pod, made once; returns its digest."""
    command = (
        f"[ -e {path}-{megabytes} ] || dd if=/dev/urandom of={path}-{megabytes} bs=1M count={megabytes} "
        f"2>/dev/null; ln -sf {path}-{megabytes} {path}; sha256sum {path}"
    )
    return cri.exec(api.pods[name][1], "sh", "-c", command).stdout.split()[0].decode()


def _resize(terminal, rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def _contents(directory: Path):
    return {path.name: path.read_bytes() for path in directory.iterdir()}
