"""Running short programs. What CNI plugins and runtimes need of it is in their tests."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import trio

from noded.host import program
from noded.host.program import run_program


def run(script, stdin=b"", seconds=20.0, **options):
    async def main():
        with trio.fail_after(seconds):
            return await run_program(
                ["sh", "-c", script],
                environment={"PATH": os.environ["PATH"]},
                stdin=stdin,
                stdout_limit_bytes=1 << 20,
                stderr_limit_bytes=100,
                **options,
            )

    before = len(os.listdir("/proc/self/fd"))
    try:
        return trio.run(main)
    finally:
        assert len(os.listdir("/proc/self/fd")) == before


def test_output_and_status_are_returned():
    done = run("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr, done.stdout_cut) == (3, b"out\n", b"err\n", False)


@pytest.mark.parametrize("size", [1, 65536, 65537, 1_000_000])
def test_input_of_any_size_comes_through(size):
    data = os.urandom(size)
    done = run("cat", stdin=data)
    assert done.stdout == data


def test_input_that_nobody_reads_is_no_failure():
    assert run("exec <&-; echo done", stdin=b"x" * 1_000_000).stdout == b"done\n"


def test_without_input_there_is_an_end_to_read():
    assert run("cat; echo end").stdout == b"end\n"


def test_the_first_of_the_output_and_the_last_of_the_errors_are_kept():
    done = run("head -c 2000000 /dev/zero; head -c 300000 /dev/zero >&2; echo end >&2")
    assert (len(done.stdout), done.stdout_cut) == (1 << 20, True)
    assert (len(done.stderr), done.stderr[-4:]) == (100, b"end\n")


@pytest.mark.parametrize("new_session", [False, True])
def test_it_leads_a_group_of_its_own(new_session):
    done = run("cut -d' ' -f1,5,6 /proc/self/stat; echo $$", new_session=new_session)
    (child, group, session), (shell,) = (line.split() for line in done.stdout.split(b"\n")[:2])
    assert group == shell
    assert (session == shell) is new_session
    assert child


def test_a_child_that_keeps_the_pipes_does_not_keep_the_answer():
    started = time.monotonic()
    done = run("sleep 1000 & echo $!", seconds=10)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert time.monotonic() - started < 10


def test_cancelled_it_is_killed_with_its_children(tmp_path):
    os.mkfifo(tmp_path / "started")

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: run_program(
                    ["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/started; wait"],
                    environment={"PATH": os.environ["PATH"]},
                    stdout_limit_bytes=1,
                    stderr_limit_bytes=1,
                )
            )
            child = int(await trio.to_thread.run_sync((tmp_path / "started").read_text))
            fd = os.pidfd_open(child)
            nursery.cancel_scope.cancel()
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(fd)
        os.close(fd)

    trio.run(main)


def test_what_cannot_be_executed_says_why_and_leaves_no_descriptor(tmp_path):
    async def main():
        with pytest.raises(FileNotFoundError):
            await run_program(
                [str(tmp_path / "none")],
                environment={},
                stdin=b"x",
                stdout_limit_bytes=1,
                stderr_limit_bytes=1,
            )

    before = len(os.listdir("/proc/self/fd"))
    trio.run(main)
    assert len(os.listdir("/proc/self/fd")) == before


def test_without_a_descriptor_for_its_events_it_is_ended_and_leaves_none(monkeypatch):
    def refuse():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(program.select, "epoll", refuse)
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    before = os.listdir("/proc/self/fd"), children.read_text()
    with pytest.raises(OSError, match="Too many open files"):
        program._Program(["sleep", "1000"], dict(os.environ), b"x", None, False, (1, 1))
    assert (os.listdir("/proc/self/fd"), children.read_text()) == before


def test_a_child_that_goes_on_reading_the_input_is_no_failure(tmp_path):
    """It makes room in the pipe after the program has ended, so that both are told at once."""
    os.mkfifo(tmp_path / "go")
    os.mkfifo(tmp_path / "read")
    script = (
        f"exec 3<&0; (read x <{tmp_path}/go; head -c 65536 <&3 >/dev/null; echo >{tmp_path}/read; "
        "sleep 1000) >/dev/null 2>&1 & exit 0"
    )

    async def main():
        one = program._Program(
            ["sh", "-c", script], {"PATH": os.environ["PATH"]}, b"x" * 200_000, None, True, (1, 1)
        )
        try:
            await trio.lowlevel.wait_readable(one._pidfd)  # no zombie is taken: `wait` does that
            (tmp_path / "go").write_text("now\n")
            (tmp_path / "read").read_text()
            await one.wait()
            assert one.returncode == 0
        finally:
            await one.end()
            os.killpg(one.pid, signal.SIGKILL)

    with_deadline(main)


def with_deadline(main):
    async def bounded():
        with trio.fail_after(20):
            await main()

    trio.run(bounded)
