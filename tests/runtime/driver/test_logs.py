# ruff: noqa: ASYNC240 - files of a scratch directory
"""Logs that are rotated, and terminals that are resized."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path

import pytest
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NotFound
from noded.runtimes import control

SAY_ON_SIGNAL = "trap 'echo again' USR1; echo first; while true; do sleep 100 & wait; done"


async def started(driver, *args, **options):
    sandbox = await driver.sandbox()
    task = driver.task(*args, **options)
    await sandbox.create(task)
    await sandbox.start(task.ref)
    return sandbox, task


def test_after_a_rotation_the_log_goes_on_in_a_new_file(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", SAY_ON_SIGNAL)
        log = Path(task.log_path)
        await driver.wait_log(task, "first")
        rotated = log.with_suffix(".1")
        log.rename(rotated)
        await sandbox.reopen_log(task.ref)
        assert log.exists()
        await sandbox.kill(task.ref, signal.SIGUSR1)
        await driver.wait_log(task, "again")
        assert "again" not in rotated.read_text()
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_log_that_was_not_moved_is_replaced(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", SAY_ON_SIGNAL)
        log = Path(task.log_path)
        await driver.wait_log(task, "first")
        await sandbox.reopen_log(task.ref)
        assert log.read_text() == ""
        await sandbox.delete(task.ref)

    trio.run(main)


def test_reopening_is_refused_when_the_monitor_is_gone_and_creates_nothing(driver):
    async def main():
        sandbox, task = await started(driver, "true")
        await sandbox.wait(task.ref)
        Path(task.log_path).unlink()
        with pytest.raises(FailedPrecondition, match="not running"):
            await sandbox.reopen_log(task.ref)
        assert not Path(task.log_path).exists()
        await sandbox.delete(task.ref)
        with pytest.raises(NotFound):
            await sandbox.reopen_log(task.ref)

    trio.run(main)


def test_reopening_without_a_directory_does_not_kill_the_container(driver):
    async def main():
        sandbox, task = await started(driver, "sleep", "100")
        record = json.loads((task.ref.bundle / "task.json").read_text())
        with pytest.raises(NotFound, match="directory does not exist"):
            await control.reopen_log(task.ref.bundle, Path(task.log_path).parent / "gone" / "0.log")
        assert Path(f"/proc/{record['monitor'][0]}").exists()
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_stopped_monitor_makes_reopening_late_not_endless(driver, monkeypatch):
    monkeypatch.setattr(control, "_REOPEN_SECONDS", 0.2)

    async def main():
        sandbox, task = await started(driver, "sleep", "100")
        monitor = json.loads((task.ref.bundle / "task.json").read_text())["monitor"][0]
        os.kill(monitor, signal.SIGSTOP)
        with trio.fail_after(5), pytest.raises(DeadlineExceeded, match="did not reopen"):
            await sandbox.reopen_log(task.ref)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_terminal_gets_its_size(driver):
    async def main():
        script = "stty size; trap 'stty size' USR1; while true; do sleep 100 & wait; done"
        sandbox, task = await started(driver, "sh", "-c", script, terminal=True)
        await driver.wait_log(task, "stty")  # a new terminal has no size
        for width, height in ((80, 24), (132, 43)):
            await sandbox.resize(task.ref, width=width, height=height)
        await sandbox.kill(task.ref, signal.SIGUSR1)
        await driver.wait_log(task, "43 132")
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_hundred_thousand_lines_arrive(driver):
    async def main():
        sandbox, task = await started(driver, "sh", "-c", "yes 0123456789 | head -n 100000; echo end")
        with trio.fail_after(60):
            assert (await sandbox.wait(task.ref)).code == 0
        lines = driver.log_lines(task)
        assert len(lines) == 100001
        assert lines[-1] == "end"
        await sandbox.delete(task.ref)

    trio.run(main)


def test_no_line_is_lost_when_a_busy_log_is_reopened(driver, counts):
    """What is written while the file is renamed goes to one of the two, and never half to each."""

    async def main():
        sandbox, task = await started(driver, "sh", "-c", "seq 1 1000000000")
        log, parts = Path(task.log_path), []
        with trio.fail_after(120):
            for number in range(counts(10, 200)):
                parts.append(log.with_suffix(f".{number}"))
                log.rename(parts[-1])
                await sandbox.reopen_log(task.ref)
            await sandbox.kill(task.ref, signal.SIGKILL, everything=True)
            await sandbox.wait(task.ref)
        lines = [line for path in (*parts, log) for line in path.read_bytes().splitlines()]
        fields = [line.split(b" ", 3) for line in lines]
        text = b"".join(rest + (b"\n" if tag == b"F" else b"") for _, _, tag, rest in fields)
        whole = text[: text.rindex(b"\n")].split(b"\n")  # it was killed in the middle of the last one
        assert len(whole) > 1000
        assert whole == [b"%d" % number for number in range(1, len(whole) + 1)]
        await sandbox.delete(task.ref)

    trio.run(main)


def test_a_log_begins_anew_at_its_largest_size(driver):
    driver.host = dataclasses.replace(driver.host, log_max_bytes=65536)

    async def main():
        sandbox, task = await started(driver, "sh", "-c", "seq 1 20000; echo end")
        with trio.fail_after(60):
            assert (await sandbox.wait(task.ref)).code == 0
        assert 0 < Path(task.log_path).stat().st_size <= 65536
        assert driver.log_lines(task)[-1] == "end"
        await sandbox.delete(task.ref)

    trio.run(main)
