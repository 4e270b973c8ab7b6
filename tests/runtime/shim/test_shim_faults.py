"""Ends that no one asked for: a daemon that restarts, a shim that dies or hangs."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest
import trio
import trio.testing
from test_shim_life_cycle import with_pod

from noded.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from noded.model.runtime import TaskState
from noded.runtimes import shim_exits, shim_service
from noded.runtimes.shim_bootstrap import find_shims


def restart(driver, before, after, infra=()):
    """Run two coroutines in two runs of trio, as two daemons would."""

    async def first():
        await before(await driver.start(infra))

    trio.run(first)
    driver.forget()

    async def second():
        sandbox = await driver.attach()
        try:
            await after(sandbox)
        finally:
            with trio.CancelScope(shield=True):
                for ref in driver.refs:
                    await sandbox.delete(ref)
                await driver.destroy()

    trio.run(second)


def test_a_live_task_goes_on_over_a_restart_and_no_output_is_lost(driver):
    tasks = []

    async def before(sandbox):
        script = (
            "trap 'echo after; exit 5' TERM; i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; "
        )
        tasks.append(
            await driver.run(sandbox, "sh", "-c", script + "echo ready; while true; do sleep 0.1; done")
        )
        await driver.wait_log(tasks[0], "line 1")

    async def after(sandbox):
        (task,) = tasks
        assert await sandbox.state(task.ref) is TaskState.RUNNING
        async with trio.open_nursery() as nursery:

            async def stop():
                await driver.wait_log(task, "ready")
                await sandbox.kill(task.ref, signal.SIGTERM)

            nursery.start_soon(stop)
            with trio.fail_after(10):
                assert (await sandbox.wait(task.ref)).code == 5
        assert driver.log_lines(task) == [*(f"line {number}" for number in range(300)), "ready", "after"]

    restart(driver, before, after)


def test_an_exit_without_a_daemon_is_told_with_its_true_code_and_time(driver):
    tasks, ended = [], []

    async def before(sandbox):
        tasks.append(
            await driver.run(
                sandbox, "sh", "-c", "trap 'exit 42' TERM; echo ready; while true; do sleep 0.1; done"
            )
        )
        await driver.wait_log(tasks[0], "ready")
        (record,) = [json.loads((task.ref.bundle / "task.json").read_text()) for task in tasks]
        fd = os.pidfd_open(record["init"][0])
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        await trio.lowlevel.wait_readable(fd)
        os.close(fd)
        ended.append(time.time_ns())

    async def after(sandbox):
        with trio.fail_after(10):
            told = await sandbox.wait(tasks[0].ref)
        assert told.code == 42
        assert abs(told.finished_at_ns - ended[0]) < 10**9

    restart(driver, before, after)


def test_a_created_task_can_be_started_after_a_restart(driver):
    tasks = []

    async def before(sandbox):
        tasks.append(driver.task("sh", "-c", "echo hello; exit 7"))
        await sandbox.create(tasks[0])

    async def after(sandbox):
        async with trio.open_nursery() as nursery:
            results = []

            async def wait():
                results.append(await sandbox.wait(tasks[0].ref))

            nursery.start_soon(wait)
            await sandbox.start(tasks[0].ref)
        assert results[0].code == 7
        assert driver.log_lines(tasks[0]) == ["hello"]

    restart(driver, before, after)


def test_a_killed_shim_ends_its_tasks_with_a_reason(driver):
    async def main(sandbox):
        task = await driver.run(sandbox, "sh", "-c", "sleep 1000 & sleep 1000")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: trio.to_thread.run_sync(os.kill, driver.shim.process.pid, signal.SIGKILL)
            )
            with trio.fail_after(5):
                ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert "its shim" in ended.message
        assert "died" in ended.message
        assert driver.cgroups.procs(task.ref.cgroup) == set()
        with pytest.raises(Unavailable, match="shim"):
            await sandbox.state(task.ref)

    with_pod(driver, main)


def test_a_pod_without_sandbox_container_gets_a_new_shim_for_its_next_container(driver):
    async def main(sandbox):
        old = await driver.run(sandbox, "sleep", "1000")
        os.kill(driver.shim.process.pid, signal.SIGKILL)
        with trio.fail_after(5):
            await sandbox.wait(old.ref)
        new = await driver.run(sandbox, "sh", "-c", "echo alive; exit 3")
        await sandbox.delete(old.ref)
        with trio.fail_after(5):
            assert (await sandbox.wait(new.ref)).code == 3
        assert driver.log_lines(new) == ["alive"]

    with_pod(driver, main)


def test_a_killed_shim_ends_the_sandbox_container_and_the_pod_takes_no_more(driver):
    async def main(sandbox):
        pid = await sandbox.infra_pid()
        init = os.pidfd_open(pid)
        os.kill(driver.shim.process.pid, signal.SIGKILL)
        with trio.fail_after(5):
            await trio.lowlevel.wait_readable(init)
        os.close(init)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert await sandbox.infra_pid() is None
        with pytest.raises(FailedPrecondition, match="run a new sandbox"):
            await sandbox.create(driver.task("true"))

    with_pod(driver, main, infra=("sleep", "1000"))


def test_a_shim_killed_while_no_daemon_ran_is_noticed_later(driver):
    tasks = []

    async def before(sandbox):
        tasks.append(await driver.run(sandbox, "sleep", "1000"))
        os.kill(driver.shim.process.pid, signal.SIGKILL)

    async def after(sandbox):
        with trio.fail_after(5):
            assert (await sandbox.wait(tasks[0].ref)).code == 255

    restart(driver, before, after)


def test_a_stopped_shim_gives_clear_errors_and_everything_is_removed(driver, monkeypatch):
    monkeypatch.setattr(shim_service, "PROBE_SECONDS", 1.0)

    async def main(sandbox):
        task = await driver.run(sandbox, "sleep", "1000")
        os.kill(driver.shim.process.pid, signal.SIGSTOP)
        process = driver.process("true")
        with trio.fail_after(8), pytest.raises(DeadlineExceeded, match=r"did not finish within 0\.5 s"):
            await sandbox.exec_sync(task.ref, process, timeout_seconds=0.5, limit_bytes=10)
        with trio.fail_after(12), pytest.raises(DeadlineExceeded, match=r"the shim .* did not answer State"):
            await sandbox.state(task.ref)

    with_pod(driver, main)


def test_the_end_of_a_task_is_told_behind_a_stopped_shim(driver):
    async def main(sandbox):
        task = await driver.run(
            sandbox, "sh", "-c", "trap 'exit 42' TERM; echo ready; while true; do sleep 0.1; done"
        )
        await driver.wait_log(task, "ready")
        os.kill(driver.shim.process.pid, signal.SIGSTOP)
        await sandbox.kill(task.ref, signal.SIGTERM)
        with trio.fail_after(10):
            ended = await sandbox.wait(task.ref)
        assert ended.code == 42
        assert "did not tell" in ended.message

    with_pod(driver, main)


def test_a_shim_whose_start_was_never_recorded_is_found_and_removed(driver):
    async def main():
        await driver.start()
        (driver.sandbox_ref.bundle / "shim.json").unlink()
        assert len(find_shims(driver.prefix)) == 1
        driver.forget()
        await driver.destroy()
        assert find_shims(driver.prefix) == []

    trio.run(main)


def test_a_create_that_is_cancelled_anywhere_leaves_nothing_after_delete(driver):
    async def main(sandbox):
        for milliseconds in (0, 1, 3, 8, 15, 25, 35, 50):
            task = driver.task("sleep", "1000")
            with trio.move_on_after(milliseconds / 1000):
                await sandbox.create(task)
            await sandbox.delete(task.ref)
            assert driver.task_traces() == []

    with_pod(driver, main)


def test_a_start_of_the_sandbox_that_is_cancelled_anywhere_leaves_nothing_after_destroy(driver):
    async def main():
        for milliseconds in (0, 2, 5, 9, 14, 20, 30, 50):
            with trio.move_on_after(milliseconds / 1000):
                await driver.start(("sleep", "1000"))
            await driver.destroy()
            assert driver.traces() == []

    trio.run(main)


def test_waiting_can_be_cancelled_and_resumed(driver, monkeypatch):
    monkeypatch.setattr(shim_exits, "_TELL_SECONDS", 0.5)

    async def main(sandbox):
        task = await driver.run(sandbox, "sleep", "1000")
        with trio.move_on_after(0.05):
            await sandbox.wait(task.ref)
            pytest.fail("the task runs")
        await sandbox.kill(task.ref, signal.SIGKILL)
        with trio.fail_after(5):
            assert (await sandbox.wait(task.ref)).code == 137

    with_pod(driver, main)
