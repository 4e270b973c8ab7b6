"""Looking into pods and trying one: exec, run, stats, events, inspect against a real daemon."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.docs.test_command_line import REPOSITORY, command, container, image, loaded, noded
from tests.support.documents import documented
from tests.support.processes import end, read_until
from tests.support.terminal import CTRL_C, Terminal

__all__ = ["container", "image", "loaded"]  # fixtures
pytestmark = pytest.mark.root


def run(daemon, *words: str, input_: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command_with_address(daemon, *words),
        cwd=REPOSITORY, input=input_, capture_output=True, timeout=120, check=False,
    )  # fmt: skip


def command_with_address(daemon, name: str, *words: str) -> list[str]:
    """Options stand before operands, because what follows those is the command's."""
    made = command(daemon)
    return [*made[:3], name, *made[3:], *words]


def test_exec_carries_output_input_and_the_exit_code(daemon, container):
    done = run(daemon, "exec", container, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    data = os.urandom(300_000)
    done = run(daemon, "exec", "-i", "app", "cat", input_=data)
    assert done.returncode == 0, done.stderr
    assert done.stdout == data
    done = run(daemon, "exec", container[:10], "no-such-program")
    assert done.returncode != 0
    assert b"no-such-program" in done.stderr
    assert run(daemon, "exec", "nobody", "true").stderr == b"noded: no container nobody\n"


READ = "read x; echo got $x"


def test_exec_has_a_terminal_of_the_size_of_ours_and_keeps_what_was_typed_ahead(daemon, container):
    script = "read x; tty; stty size; echo got $x; trap 'stty size; exit 5' WINCH; echo armed; "
    script += "while :; do sleep 1; done"
    words = command_with_address(daemon, "exec", "-it", container, "sh", "-c", script)
    with Terminal(words, rows=37, columns=113) as terminal:
        terminal.type(b"word\r")  # typed ahead, perhaps before the terminal is the container's
        said = terminal.wait_for(b"armed")
        assert b"/dev/pts/" in said
        assert b"37 113" in said
        assert b"got word" in said
        terminal.resize(21, 55)
        assert terminal.wait() == 5
        assert b"21 55" in terminal.seen


def test_stats_are_watched_in_place_until_ctrl_c(daemon, container):
    words = command(daemon, "stats", "--watch", "--interval", "0.1")
    with Terminal(words, rows=20, columns=100) as terminal:
        first = terminal.wait_for(b"default/shown")
        assert first.startswith(b"\x1b[?1049h"), "on a screen of its own"
        assert b"CPU" in first
        again = terminal.wait_for(b"default/shown")
        assert b"\x1b[H" in again, "from the top left corner"
        terminal.resize(20, 58)
        for _ in range(2):  # one look may have been drawn for the old size
            terminal.wait_for(b"\x1b[H")
        narrow = terminal.wait_for(b"\x1b[H").removesuffix(b"\x1b[H")
        lines = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", narrow).decode().splitlines()
        assert max(map(len, lines)) <= 58, lines
        (row,) = [line for line in lines if line.startswith(container[:10])]
        assert re.search(r" defau[^ ]*… +[0-9.]+% +[0-9.]+ [kM]B +[0-9.]+ [kM]?B", row), row
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
        assert terminal.seen.rstrip().endswith((b"\x1b[?25h", b"\x1b[?1049l")), "the screen is as before"
        assert b"\x1b[?1049l" in terminal.seen
        assert b"Traceback" not in terminal.seen


def test_stats_are_watched_as_lines_of_json_in_a_pipe(daemon, container):
    watching = subprocess.Popen(
        command(daemon, "stats", "--watch", "--interval", "0.1"), cwd=REPOSITORY, stdout=subprocess.PIPE
    )
    try:
        assert watching.stdout is not None
        lines = [read_until(watching.stdout, watching, bool, 60.0) for _ in range(2)]
    finally:
        end(watching)
    assert [documented("stats", line)[0]["id"] for line in lines] == [container] * 2


def logs_of(name: str) -> list[Path]:
    """The directories for logs of the pods of this name."""
    return list(Path("/var/log/pods").glob(f"default_{name}_*"))


def test_run_shows_the_output_passes_the_exit_code_and_leaves_nothing(daemon, loaded):
    done = run(daemon, "run", "--env", "A=b c", loaded, "sh", "-c", "echo $A; hostname; echo err >&2; exit 5")
    assert done.returncode == 5, done.stderr
    name = done.stdout.decode().split()[-1]
    assert re.fullmatch(rf"b c\n{name}\n", done.stdout.decode())
    assert re.fullmatch(r"run-[0-9a-f]{6}", name)
    assert done.stderr == b"err\n"
    done = run(daemon, "run", "-i", "--runtime", "crun", loaded, "sh", "-c", READ, input_=b"word\n")
    assert (done.returncode, done.stdout) == (0, b"got word\n"), done.stderr
    assert json.loads(noded(daemon, "pods", "--json")) == []
    assert not logs_of(name)


def test_run_keeps_the_pod_when_asked_to_and_refuses_nonsense(daemon, loaded):
    name = f"kept-{secrets.token_hex(4)}"
    done = run(daemon, "run", "--no-rm", "--name", name, loaded, "true")
    for path in logs_of(name):  # noded does not know when nobody wants to read them any more
        shutil.rmtree(path)
    assert done.returncode == 0, done.stderr
    (pod,) = json.loads(noded(daemon, "pods", "--json"))
    assert pod["name"] == name
    assert done.stderr.decode() == f"pod {pod['id']}\n"
    done = run(daemon, "run", "--env", "A", loaded)
    assert done.stderr == b"noded: --env A: expected NAME=VALUE\n"


def test_an_interrupted_run_removes_its_pod(daemon, loaded):
    process = subprocess.Popen(
        command_with_address(daemon, "run", loaded, "sh", "-c", "echo up; exec sleep 1000"),
        cwd=REPOSITORY, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        read_until(process.stdout, process, lambda line: line == "up", 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    finally:
        end(process)
    assert json.loads(noded(daemon, "pods", "--json")) == []


def test_stats_inspect_and_events_tell_of_a_container(daemon, container, loaded):
    (usage,) = json.loads(noded(daemon, "stats", "--json"))
    assert usage["id"] == container
    assert usage["pod"] == "default/shown"
    assert usage["memory_working_set_bytes"] > 0
    assert "default/shown" in noded(daemon, "stats")
    told = json.loads(noded(daemon, "inspect", "app"))
    assert told["type"] == "container"
    assert told["status"]["id"] == container
    assert told["info"]["info"]["pid"] > 0
    pod = json.loads(noded(daemon, "inspect", "default/shown"))
    assert pod["type"] == "pod"
    assert [each["id"] for each in pod["containers"]] == [container]
    found = json.loads(noded(daemon, "inspect", loaded))
    assert (found["type"], found["used_by_containers"]) == ("image", [container])
    assert "no container or pod or image nothing" in noded(daemon, "inspect", "nothing", status=1)


def test_events_are_lines_of_json_in_a_pipe(daemon, loaded):
    following = subprocess.Popen(command(daemon, "events"), cwd=REPOSITORY, stdout=subprocess.PIPE)
    try:
        assert following.stdout is not None
        lines: list[dict] = []
        assert run(daemon, "run", "--name", "told", loaded, "sh", "-c", "exit 4").returncode == 4

        def stopped(line: str) -> bool:
            lines.append(documented("events", line))
            return lines[-1]["event"] == "deleted" and lines[-1]["kind"] == "pod"

        read_until(following.stdout, following, stopped, 30)
    finally:
        end(following)
    of_container = {each["event"]: each for each in lines if each["kind"] == "container"}
    assert set(of_container) >= {"created", "started", "stopped"}
    assert of_container["stopped"]["exit_code"] == 4
    assert {each["pod"] for each in lines} == {"default/told"}
