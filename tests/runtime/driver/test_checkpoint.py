"""A task is saved with CRIU, lives on, and another one is made from what was saved."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import trio

from noded.errors import FailedPrecondition
from noded.model.runtime import TaskState
from tests.support.criu import need_criu

COUNT = "i=0; while :; do i=$((i+1)); echo count $i; sleep 0.05; done"


@pytest.fixture
def criu(driver, monkeypatch):
    monkeypatch.setenv("PATH", f"{need_criu()}:{os.environ['PATH']}")
    if not trio.run(driver.runtime().features).checkpoint:
        pytest.skip(f"this {driver.quirks.program} is built without CRIU")


def last_count(driver, task):
    return int(driver.log_lines(task)[-1].split()[-1])


def test_a_counter_goes_on_where_its_checkpoint_was_taken(driver, criu, tmp_path):
    images, work = tmp_path / "images", tmp_path / "work"
    images.mkdir()
    work.mkdir()

    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sh", "-c", COUNT)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        await driver.wait_log(task, "count 5")
        await sandbox.pause(task.ref)
        assert await sandbox.state(task.ref) is TaskState.PAUSED
        saved = last_count(driver, task)
        await sandbox.checkpoint(task.ref, images, work, timeout_seconds=60)
        assert await sandbox.state(task.ref) is TaskState.PAUSED
        await sandbox.resume(task.ref)
        await driver.wait_log(task, f"count {saved + 3}")
        await sandbox.delete(task.ref)
        other = replace(driver.task("sh", "-c", "echo never run"), restore_from=images)
        pid = await sandbox.create(other)
        try:
            assert pid > 1
            await driver.wait_log(other, f"count {saved + 5}")
            first = int(driver.log_lines(other)[0].split()[-1])
            assert saved <= first <= saved + 1
            assert await sandbox.state(other.ref) is TaskState.RUNNING
            result = await sandbox.exec_sync(
                other.ref, driver.process("echo", "in"), timeout_seconds=20, limit_bytes=100
            )
            assert result.stdout == b"in\n"
        finally:
            await sandbox.delete(other.ref)

    trio.run(main)


def test_a_broken_checkpoint_is_told_in_criu_s_words_and_leaves_nothing(driver, criu, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    (images / "inventory.img").write_bytes(b"not an image")
    (images / "descriptors.json").write_text("[null, null, null]")

    async def main():
        sandbox = await driver.sandbox()
        task = replace(driver.task("true"), restore_from=images)
        with pytest.raises(FailedPrecondition, match=r"could not restore.*CRIU says:"):
            await sandbox.create(task)
        await sandbox.delete(task.ref)

    trio.run(main)


def test_without_criu_a_checkpoint_is_refused_with_the_cure(driver, tmp_path, monkeypatch):
    async def main():
        sandbox = await driver.sandbox()
        task = driver.task("sleep", "1000")
        await sandbox.create(task)
        await sandbox.start(task.ref)
        try:
            (tmp_path / "bin").mkdir()
            monkeypatch.setenv("PATH", str(tmp_path / "bin"))
            with pytest.raises(FailedPrecondition, match="install CRIU"):
                await sandbox.checkpoint(task.ref, tmp_path, tmp_path, timeout_seconds=60)
            monkeypatch.undo()
        finally:
            await sandbox.delete(task.ref)

    trio.run(main)
