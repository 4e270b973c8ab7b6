# ruff: noqa: ASYNC240 - files of a scratch directory
"""A pod on the real runc shim, from start to removal."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import trio

from noded.errors import FailedPrecondition, NotFound, Unavailable
from noded.model.runtime import TaskState


def with_pod(driver, main, infra=()):
    async def wrapped():
        try:
            await main(await driver.start(infra))
        finally:
            with trio.CancelScope(shield=True):
                sandbox = await driver.attach()
                for ref in driver.refs:
                    await sandbox.delete(ref)
                await driver.destroy()

    trio.run(wrapped)


def test_a_task_runs_logs_and_reports_its_exit_code(driver):
    async def main(sandbox):
        task = driver.task("sh", "-c", "echo out; echo err >&2; exit 7")
        pid = await sandbox.create(task)
        assert pid in driver.cgroups.procs(task.ref.cgroup)
        assert await sandbox.state(task.ref) is TaskState.CREATED
        began = time.time_ns()
        await sandbox.start(task.ref)
        with trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
        assert (ended.code, ended.oom_killed, ended.message) == (7, False, "")
        assert began - 10**9 < ended.finished_at_ns <= time.time_ns()
        assert sorted(driver.log_lines(task)) == ["err", "out"]
        assert await sandbox.state(task.ref) is TaskState.STOPPED
        assert await sandbox.wait(task.ref) == ended
        await sandbox.delete(task.ref)
        await sandbox.delete(task.ref)
        assert await sandbox.state(task.ref) is TaskState.MISSING
        assert (await sandbox.wait(task.ref)).code == 255

    with_pod(driver, main)


def test_the_shim_runs_in_the_monitors_cgroup(driver):
    async def main(sandbox):
        assert driver.shim.process.pid in driver.cgroups.procs(f"/{driver.prefix}/monitors")

    with_pod(driver, main)


def test_two_containers_share_the_shim_of_their_pod(driver):
    async def main(sandbox):
        one = await driver.run(sandbox, "sleep", "1000")
        two = await driver.run(sandbox, "sh", "-c", "exit 3")
        with trio.fail_after(10):
            assert (await sandbox.wait(two.ref)).code == 3
        await sandbox.delete(two.ref)
        assert await sandbox.state(one.ref) is TaskState.RUNNING

    with_pod(driver, main)


def test_a_sandbox_container_is_created_first_and_its_pid_told(driver):
    async def main(sandbox):
        pid = await sandbox.infra_pid()
        assert pid in driver.cgroups.procs(driver.sandbox_ref.cgroup)
        task = await driver.run(sandbox, "sleep", "1000")
        assert await sandbox.state(task.ref) is TaskState.RUNNING

    with_pod(driver, main, infra=("sleep", "1000"))


def test_signals_reach_the_task_and_a_task_that_is_gone_is_success(driver):
    async def main(sandbox):
        task = await driver.run(
            sandbox, "sh", "-c", "trap 'exit 4' TERM; echo ready; while true; do sleep 1; done"
        )
        await driver.wait_log(task, "ready")
        await sandbox.kill(task.ref, signal.SIGTERM)
        with trio.fail_after(10):
            assert (await sandbox.wait(task.ref)).code == 4
        await sandbox.kill(task.ref, signal.SIGTERM)
        await sandbox.kill(task.ref, signal.SIGKILL, everything=True)

    with_pod(driver, main)


def test_sigkill_to_everything_ends_the_whole_task(driver):
    async def main(sandbox):
        task = await driver.run(sandbox, "sh", "-c", "sleep 1000 & sleep 1000")
        await sandbox.kill(task.ref, signal.SIGKILL, everything=True)
        with trio.fail_after(10):
            assert (await sandbox.wait(task.ref)).code == 137
        assert driver.cgroups.procs(task.ref.cgroup) == set()

    with_pod(driver, main)


def test_delete_removes_created_running_and_never_created_tasks(driver):
    async def main(sandbox):
        created = driver.task("sleep", "1000")
        await sandbox.create(created)
        running = await driver.run(sandbox, "sleep", "1000")
        never = driver.task("sleep", "1000")
        with trio.fail_after(10):
            for task in (created, running, never):
                await sandbox.delete(task.ref)
        assert driver.task_traces() == []

    with_pod(driver, main)


def test_a_missing_command_is_named_and_leaves_nothing(driver):
    async def main(sandbox):
        task = driver.task("no-such-command")
        with pytest.raises(FailedPrecondition, match=r"no-such-command.*check command and PATH"):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    with_pod(driver, main)


def test_limits_change_while_the_task_runs(driver):
    async def main(sandbox):
        task = await driver.run(sandbox, "sleep", "1000", memory_bytes=64 << 20)
        limit = 96 << 20
        await sandbox.update(task.ref, {"memory": {"limit": limit, "swap": limit}})
        directory = driver.cgroups.directory(task.ref.cgroup, "memory")
        name = "memory.limit_in_bytes" if (directory / "memory.limit_in_bytes").exists() else "memory.max"
        assert int((directory / name).read_text()) == limit

    with_pod(driver, main)


def test_statistics_are_those_of_the_cgroup(driver):
    async def main(sandbox):
        task = await driver.run(sandbox, "sh", "-c", "echo ready; sleep 1000", memory_bytes=64 << 20)
        await driver.wait_log(task, "ready")
        usage = await sandbox.usage(task.ref)
        assert usage.processes >= 1
        assert 0 < usage.working_set_bytes <= usage.memory_bytes < 64 << 20
        assert usage.cpu_ns > 0

    with_pod(driver, main)


def test_a_paused_task_does_nothing_until_it_is_resumed(driver):
    async def main(sandbox):
        task = await driver.run(sandbox, "sleep", "1000")
        await sandbox.pause(task.ref)
        assert await sandbox.state(task.ref) is TaskState.PAUSED
        await sandbox.resume(task.ref)
        assert await sandbox.state(task.ref) is TaskState.RUNNING
        await sandbox.pause(task.ref)  # and removal ends a paused one

    with_pod(driver, main)


def test_a_task_killed_for_memory_is_reported_as_oom_killed(driver):
    async def main(sandbox):
        eat = ("dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1")
        task = await driver.run(sandbox, *eat, memory_bytes=24 << 20)
        with trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
        assert (ended.code, ended.oom_killed) == (137, True)

    with_pod(driver, main)


def test_a_terminal_has_the_size_that_was_set_and_one_stream(driver):
    async def main(sandbox):
        script = "trap 'stty size; echo err >&2' WINCH; echo ready; while true; do sleep 0.1; done"
        task = await driver.run(sandbox, "sh", "-c", script, terminal=True)
        await driver.wait_log(task, "ready")
        await sandbox.resize(task.ref, width=91, height=37)
        await driver.wait_log(task, "37 91")
        await driver.wait_log(task, "err")
        assert all(line.split(" ")[1] == "stdout" for line in Path(task.log_path).read_text().splitlines())

    with_pod(driver, main)


def test_a_log_is_reopened_after_a_rotation(driver):
    async def main(sandbox):
        task = await driver.run(
            sandbox, "sh", "-c", "trap 'echo two' USR1; echo one; while true; do sleep 0.1; done"
        )
        await driver.wait_log(task, "one")
        rotated = task.log_path + ".1"
        os.rename(task.log_path, rotated)
        await sandbox.reopen_log(task.ref)
        assert Path(task.log_path).read_bytes() == b""
        await sandbox.kill(task.ref, signal.SIGUSR1)
        await driver.wait_log(task, "two")
        assert "one" in Path(rotated).read_text()

    with_pod(driver, main)


def test_a_large_log_is_complete_when_the_exit_is_told(driver):
    async def main(sandbox):
        task = await driver.run(
            sandbox, "sh", "-c", "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done"
        )
        with trio.fail_after(60):
            await sandbox.wait(task.ref)
        assert driver.log_lines(task) == [f"line {number}" for number in range(20000)]

    with_pod(driver, main)


def test_a_long_line_without_end_is_kept_whole(driver):
    async def main(sandbox):
        script = "dd if=/dev/zero bs=100000 count=1 2>/dev/null"
        task = await driver.run(sandbox, "sh", "-c", script)
        with trio.fail_after(20):
            await sandbox.wait(task.ref)
        lines = Path(task.log_path).read_bytes().splitlines()
        assert all(line.split(b" ", 3)[2] == b"P" for line in lines)
        assert max(len(line) for line in lines) <= 16 * 1024 + 64
        assert b"".join(line.split(b" ", 3)[3] for line in lines) == bytes(100000)

    with_pod(driver, main)


def test_a_log_whose_directory_is_missing_is_named(driver):
    async def main(sandbox):
        task = driver.task("true")
        broken = type(task)(
            **{name: getattr(task, name) for name in task.__slots__} | {"log_path": "/no/such/x.log"}
        )
        with pytest.raises(NotFound, match=r"/no/such/x\.log"):
            await sandbox.create(broken)

    with_pod(driver, main)


def test_a_sandbox_that_was_never_started_is_destroyed_without_effect(driver):
    async def main():
        await driver.destroy()
        sandbox = await driver.attach()
        task = driver.task("true")
        with pytest.raises(FailedPrecondition, match="never started"):
            await sandbox.create(task)
        with pytest.raises(Unavailable):
            await sandbox.start(task.ref)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_features_tell_version_and_what_the_oci_runtime_can_do(driver):
    async def main():
        features = await driver.runtime.features()
        assert features.version[0].isdigit()
        assert features.update
        assert not features.needs_infra

    trio.run(main)
