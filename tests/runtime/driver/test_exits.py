"""Ends that no one asked for: out of memory, dead and hung monitors."""

from __future__ import annotations

import dataclasses
import json
import os
import signal

import pytest
import trio

from noded.runtimes import monitor as monitor_module
from tests.support.kernel_log import tells_of_victim
from tests.support.processes import kept_stopped

EAT_MEMORY = "dd if=/dev/zero of=/dev/null bs=512M count=1"
LIMIT = 24 << 20


async def started(driver, *args, **options):
    sandbox = await driver.sandbox()
    task = driver.task(*args, **options)
    await sandbox.create(task)
    await sandbox.start(task.ref)
    return sandbox, task


def monitor_pid(task):
    return json.loads((task.ref.bundle / "task.json").read_text())["monitor"][0]


def test_a_task_killed_for_memory_is_reported_as_oom_killed(driver):
    async def main():
        for _ in range(5):
            sandbox, task = await started(driver, *EAT_MEMORY.split(), memory_bytes=LIMIT)
            with trio.fail_after(20):
                ended = await sandbox.wait(task.ref)
            assert (ended.code, ended.oom_killed) == (137, True)
            await sandbox.delete(task.ref)
            # systemd removes a scope before anybody could read its counter, now and then.
            exits = monitor_module.Exits(driver.host.layout.exits, driver.cgroups)
            told = await trio.to_thread.run_sync(tells_of_victim, task.ref.id)
            assert exits.oom_killed(task.ref, 137) == told
            assert not exits.oom_killed(task.ref, 0)

    trio.run(main)


def test_a_task_that_fails_because_a_child_was_killed_for_memory_is_oom_killed(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", f"{EAT_MEMORY}; exit 3", memory_bytes=LIMIT)
        with trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
        assert (ended.code, ended.oom_killed) == (3, True)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_task_that_survives_the_loss_of_a_child_and_succeeds_is_not_oom_killed(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", f"{EAT_MEMORY}; exit 0", memory_bytes=LIMIT)
        with trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
        assert (ended.code, ended.oom_killed) == (0, False)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_plain_failure_is_not_oom_killed_even_if_a_neighbour_was(driver):
    """On cgroup v1 the notification of a pod's limit reaches all its containers."""

    async def main():
        place = f"/{driver.prefix}"
        driver.cgroups.create(place)
        directory = driver.cgroups.directory(place, "memory")
        name = "memory.limit_in_bytes" if (directory / "memory.limit_in_bytes").exists() else "memory.max"
        sandbox, bystander = await started(
            driver, "sh", "-c", "trap 'exit 4' TERM; echo ready; sleep 100 & wait"
        )
        await driver.wait_log(bystander, "ready")
        (directory / name).write_text(str(48 << 20))
        _, victim = await started(driver, "sh", "-c", f"{EAT_MEMORY}; exit 3")
        with trio.fail_after(20):
            assert (await sandbox.wait(victim.ref)).oom_killed
            await sandbox.kill(bystander.ref, signal.SIGTERM)
            ended = await sandbox.wait(bystander.ref)
        assert (ended.code, ended.oom_killed) == (4, False)
        await sandbox.delete(victim.ref)
        await sandbox.delete(bystander.ref)

    trio.run(main)


def test_a_task_whose_monitor_is_killed_ends_with_a_reason(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", "sleep 1000 & sleep 1000")
        async with trio.open_nursery() as nursery:

            async def kill():
                os.kill(monitor_pid(task), signal.SIGKILL)

            nursery.start_soon(kill)
            with trio.fail_after(5):
                ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert "monitor" in ended.message
        assert driver.cgroups.procs(task.ref.cgroup) == set()
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_monitor_killed_while_nobody_watched_is_noticed_later(driver):
    async def main():
        _, task = await started(driver, "sleep", "1000")
        os.kill(monitor_pid(task), signal.SIGKILL)
        later = await driver.sandbox()
        with trio.fail_after(5):
            assert (await later.wait(task.ref)).code == 255
        await later.delete(task.ref)

    trio.run(main)


def test_delete_removes_a_task_whose_monitor_was_killed(driver):
    async def main():
        sandbox, task = await started(driver, "sleep", "1000")
        os.kill(monitor_pid(task), signal.SIGKILL)
        with trio.fail_after(5):
            await sandbox.delete(task.ref)

    trio.run(main)


def test_delete_removes_a_task_with_a_stopped_monitor_in_bounded_time(driver):
    async def main():
        sandbox, task = await started(driver, "sleep", "1000")
        os.kill(monitor_pid(task), signal.SIGSTOP)
        with trio.fail_after(5):
            await sandbox.delete(task.ref)

    trio.run(main)


def test_the_true_exit_code_is_found_behind_a_stopped_monitor(driver, monkeypatch):
    monkeypatch.setattr(monitor_module, "_RECORD_SECONDS", 0.2)

    async def main():
        sandbox, task = await started(driver, "sh", "-c", "trap 'exit 42' TERM; echo ready; sleep 100 & wait")
        await driver.wait_log(task, "ready")
        os.kill(monitor_pid(task), signal.SIGSTOP)
        await sandbox.kill(task.ref, signal.SIGTERM)
        with trio.fail_after(5):
            ended = await sandbox.wait(task.ref)
        assert ended.code == 42
        assert "did not record" in ended.message
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_monitor_that_was_stopped_once_goes_on(driver):
    driver.host = dataclasses.replace(driver.host, stalled_seconds=0.1)

    async def main():
        sandbox, task = await started(driver, "sh", "-c", "trap 'exit 42' TERM; echo ready; sleep 100 & wait")
        await driver.wait_log(task, "ready")
        ends = []

        async def wait():
            ends.append(await sandbox.wait(task.ref))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                pid = monitor_pid(task)
                os.kill(pid, signal.SIGSTOP)
                await trio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WCONTINUED, abandon_on_cancel=True)
                assert not ends
                await sandbox.kill(task.ref, signal.SIGTERM)
        assert (ends[0].code, ends[0].message) == (42, "")
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_monitor_that_signals_keep_stopped_ends_its_task_in_bounded_time(driver):
    driver.host = dataclasses.replace(driver.host, stalled_seconds=0.1)

    async def main():
        sandbox, task = await started(driver, "sleep", "1000")
        with kept_stopped(monitor_pid(task)), trio.fail_after(10):
            ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert "stopped by a signal again after it was continued, and was killed" in ended.message
        await sandbox.delete(task.ref)

    trio.run(main)


def test_waiting_can_be_cancelled_and_resumed(driver):
    async def main():
        sandbox, task = await started(driver, "sleep", "1000")
        with trio.move_on_after(0.05):
            await sandbox.wait(task.ref)
            pytest.fail("the task runs")
        await sandbox.kill(task.ref, signal.SIGKILL)
        with trio.fail_after(5):
            assert (await sandbox.wait(task.ref)).code == 137
        await sandbox.delete(task.ref)

    trio.run(main)
