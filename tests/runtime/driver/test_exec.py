"""Commands in a running task: output, exit codes, timeouts, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NodedError
from noded.host.processes import children_of

LIMIT = 16 << 20


async def running(driver, *args):
    sandbox = await driver.sandbox()
    task = driver.task(*(args or ("sleep", "1000")))
    await sandbox.create(task)
    await sandbox.start(task.ref)
    return sandbox, task


def with_exec(driver, main):
    async def wrapped():
        sandbox, task = await running(driver)

        async def run(*args, timeout_seconds=20.0, limit_bytes=LIMIT):
            return await sandbox.exec_sync(
                task.ref, driver.process(*args), timeout_seconds=timeout_seconds, limit_bytes=limit_bytes
            )

        try:
            await main(run, task)
        finally:
            with trio.CancelScope(shield=True):
                await sandbox.delete(task.ref)

    trio.run(wrapped)


def test_output_and_exit_code_come_back(driver):
    async def main(run, task):
        result = await run("sh", "-c", "echo out; echo err >&2; exit 5")
        assert (result.exit_code, result.stdout, result.stderr) == (5, b"out\n", b"err\n")
        assert (await run("true")).exit_code == 0

    with_exec(driver, main)


def test_a_command_killed_by_a_signal_has_the_shell_s_code(driver):
    async def main(run, task):
        assert (await run("sh", "-c", "kill -9 $$")).exit_code == 137

    with_exec(driver, main)


def test_a_command_that_exits_255_is_not_taken_for_a_failed_start(driver):
    async def main(run, task):
        result = await run("sh", "-c", "echo 'executable file not found' >&2; exit 255")
        assert result.exit_code == 255

    with_exec(driver, main)


def test_a_missing_command_is_named(driver):
    async def main(run, task):
        with pytest.raises(FailedPrecondition, match=r"no-such.*check command and PATH"):
            await run("no-such")

    with_exec(driver, main)


def test_a_command_in_a_dead_container_is_refused(driver):
    async def main():
        sandbox, task = await running(driver, "true")
        await sandbox.wait(task.ref)
        with pytest.raises(NodedError, match=driver.quirks.program):
            await sandbox.exec_sync(task.ref, driver.process("true"), timeout_seconds=10, limit_bytes=10)
        await sandbox.delete(task.ref)
        with pytest.raises(NodedError):
            await sandbox.exec_sync(task.ref, driver.process("true"), timeout_seconds=10, limit_bytes=10)

    trio.run(main)


def test_a_timeout_kills_the_whole_tree(driver):
    async def main(run, task):
        before = children_of(os.getpid())
        with trio.fail_after(10), pytest.raises(DeadlineExceeded, match=r"did not finish within 0\.3 s"):
            await run(
                "sh", "-c", "sleep 777 & sh -c 'sleep 778; true' & (sleep 779 &) ; wait", timeout_seconds=0.3
            )
        assert [pid for text in ("777", "778", "779") for pid in inside(driver, task, text)] == []
        assert children_of(os.getpid()) == before

    with_exec(driver, main)


def test_a_timeout_while_the_runtime_starts_the_command_leaves_nothing(driver):
    async def main(run, task):
        for milliseconds in (1, 2, 4, 6, 8, 10, 14, 18, 25):
            with pytest.raises(DeadlineExceeded):
                await run("sleep", "776", timeout_seconds=milliseconds / 1000)
        assert inside(driver, task, "776") == []

    with_exec(driver, main)


def test_commands_cut_off_at_any_moment_leave_nothing(driver):
    """A zombie in the container's PID namespace would keep the container from ending."""

    async def main(run, task):
        before = children_of(os.getpid())
        random = Random(7)
        commands = [
            ("true",),
            ("no-such",),
            ("sh", "-c", "exit 3"),
            ("sh", "-c", "(sleep 774 &); sleep 774 & wait"),
        ]

        async def cut(count):
            for _ in range(count):
                with suppress(NodedError):
                    await run(*random.choice(commands), timeout_seconds=random.random() * 0.06)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(cut, 8)
        assert children_of(os.getpid()) == before
        assert inside(driver, task, "774") == []

    with_exec(driver, main)


def test_a_cancelled_command_is_killed(driver):
    async def main(run, task):
        with trio.move_on_after(0.3):
            await run("sleep", "775", timeout_seconds=None)
        assert inside(driver, task, "775") == []

    with_exec(driver, main)


def test_background_children_neither_delay_the_answer_nor_die(driver):
    async def main(run, task):
        with trio.fail_after(5):
            result = await run("sh", "-c", "(sleep 300; echo late) & echo now", timeout_seconds=None)
        assert result.stdout == b"now\n"
        assert inside(driver, task, "300") != []

    with_exec(driver, main)


def test_output_beyond_the_limit_is_dropped_but_the_command_ends(driver):
    async def main(run, task):
        result = await run(
            "sh", "-c", "head -c 20000000 /proc/self/exe; yes | head -c 20000000; yes | head -c 9 >&2"
        )
        assert result.exit_code == 0
        assert len(result.stdout) == LIMIT
        assert result.stderr == b"y\ny\ny\ny\ny"
        small = await run("sh", "-c", "yes | head -c 100000", limit_bytes=10)
        assert small.stdout == b"y\n" * 5

    with_exec(driver, main)


def test_many_commands_at_once_leave_no_descriptor_and_no_process(driver):
    async def main(run, task):
        await run("true")
        fds = len(os.listdir("/proc/self/fd"))
        results = []

        async def one(number):
            results.append((number, await run("sh", "-c", f"echo {number}; exit {number}")))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(one, number)
        assert all((r.exit_code, r.stdout) == (n, b"%d\n" % n) for n, r in results)
        assert len(os.listdir("/proc/self/fd")) == fds
        assert list(task.ref.bundle.glob("exec-*")) == []

    with_exec(driver, main)


def inside(driver, task, text):
    """Pids of the task's processes whose command line mentions `text`."""
    members = driver.cgroups.procs(task.ref.cgroup)
    return [pid for pid in driver.pids_mentioning(text) if pid in members and Path(f"/proc/{pid}").exists()]


def test_the_process_of_a_command_and_the_runtime_s_state_are_root_s_alone(driver, tmp_path):
    """It has the environment of the container in it, secrets too; whatever the daemon's umask is."""
    script, seen = tmp_path / "runtime", tmp_path / "seen"
    program = shutil.which(driver.quirks.program)
    script.write_text(
        "#!/bin/sh\n"
        f'for word; do case $word in *exec-*.json) stat -c %a "$word" >>{seen};; esac; done\n'
        f'exec {program} "$@"\n'
    )
    script.chmod(0o755)

    async def main():
        sandbox = await driver.sandbox(path=str(script))
        task = driver.task("sleep", "1000")
        await sandbox.create(task)
        try:
            await sandbox.start(task.ref)
            process = driver.process("true")
            done = await sandbox.exec_sync(task.ref, process, timeout_seconds=20.0, limit_bytes=LIMIT)
            assert done.exit_code == 0
            stream = await sandbox.exec_open(task.ref, process, terminal=False, stdin=False)
            assert await stream.wait() == 0
            stream.close()
            assert set(seen.read_text().split()) == {"600"}
            assert len(seen.read_text().split()) >= 2
            state = driver.host.layout.state
            for directory in (state / "runtimes", *(state / "runtimes").glob("*/"), driver.host.layout.exits):
                assert stat.S_IMODE(directory.stat().st_mode) == 0o700, directory
            assert stat.S_IMODE((task.ref.bundle / "task.json").stat().st_mode) == 0o600
        finally:
            with trio.CancelScope(shield=True):
                await sandbox.delete(task.ref)

    before = os.umask(0)
    try:
        trio.run(main)
    finally:
        os.umask(before)
