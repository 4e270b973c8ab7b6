"""What a checkpoint holds, leaves and gives up. The runtime is simulated: CRIU needs a kernel to match."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from types import SimpleNamespace

import pytest
import trio
import trio.testing

import noded.engine.checkpoints
import noded.engine.thaws
from noded.engine.checkpoints import Checkpoints
from noded.engine.container import Container
from noded.engine.events import Events
from noded.engine.operations import Operations
from noded.engine.registry import Registry
from noded.engine.sandbox import PodSandbox
from noded.engine.thaws import Thaws, mark_frozen
from noded.errors import Aborted, Unavailable
from noded.images.checkpoint_archive import temporary_of, write_archive
from noded.images.interruptible import InterruptibleReader
from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.paths import Layout
from noded.model.pod import PodConfig, SandboxKey
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.runtime import Exit

SECONDS = 20.0
KEY = SandboxKey("ns", "web", "uid", 0)


class World:
    """One running container, and a runtime that does as it is told."""

    def __init__(self, tmp_path, nursery):
        self.frozen = False
        self.failures = 0  # of the next calls of resume
        self.hang = False  # in CRIU
        self.criu = trio.Event()
        self.resumed = trio.Event()
        self.saved_to = None
        self.layout = Layout(tmp_path / "root", tmp_path / "state")
        registry = Registry()
        events = Events(registry.views_of)
        rows = SimpleNamespace(update=self._update)
        sandbox = PodSandbox(
            rows,
            SandboxRecord("p1", KEY, "runc", b"r", PodConfig(KEY), 1, "boot", SandboxIntent.READY),
            events,
        )
        record = ContainerRecord(
            "c1",
            ContainerKey("p1", "c", 0),
            b"r",
            ContainerConfig("c", 0, "i"),
            1,
            "boot",
            ContainerIntent.STARTED,
            "sha256:i",
        )
        self.container = Container(rows, record, sandbox, self.layout.bundle("c1"), events)
        registry.add_sandbox(sandbox)
        registry.add_container(self.container)
        self.bundle.mkdir(parents=True)
        self.layout.checkpoints.mkdir(parents=True)
        bind = {"type": "bind", "source": str(tmp_path), "destination": "/data"}
        (self.bundle / "config.json").write_text(json.dumps({"mounts": [bind]}))
        self.thaws = Thaws(self, nursery)
        self.checkpoints = Checkpoints(
            enabled=True,
            layout=self.layout,
            registry=registry,
            operations=Operations(nursery),
            handlers=SimpleNamespace(features_of=self._features),
            images=SimpleNamespace(get=lambda _: SimpleNamespace(id="sha256:i")),
            snapshots=SimpleNamespace(write_diff=self._write_diff),
            ladder=self,
            thaws=self.thaws,
        )

    @property
    def bundle(self):
        return self.layout.bundle("c1")

    async def sandbox_runtime(self, container):
        return self

    async def pause(self, ref):
        self.frozen = True

    async def resume(self, ref):
        if self.failures:
            self.failures -= 1
            raise Unavailable("the cgroup cannot be written")
        self.frozen = False
        self.resumed.set()

    async def checkpoint(self, ref, images, work, *, timeout_seconds):
        assert self.frozen
        self.saved_to = images
        (images / "pages-1.img").write_bytes(b"secret")
        self.criu.set()
        if self.hang:
            await trio.sleep_forever()

    async def _features(self, handler):
        return SimpleNamespace(checkpoint=True)

    async def _update(self, record):
        pass

    async def _write_diff(self, container_id, image, target):
        assert self.frozen
        target.write_bytes(b"diff")
        return []


def played(tmp_path, play, clock=None):
    async def main():
        with trio.fail_after(1000 if clock else SECONDS):
            async with trio.open_nursery() as nursery:
                await play(World(tmp_path, nursery))
                nursery.cancel_scope.cancel()

    trio.run(main, clock=clock)


def test_the_memory_is_kept_out_of_the_containers_data_and_is_gone_afterwards(tmp_path):
    target = tmp_path / "c.tar"

    async def play(world):
        await world.checkpoints.checkpoint("c1", str(target), 0)
        assert not world.saved_to.is_relative_to(world.layout.container_data("c1"))
        assert os.listdir(world.layout.checkpoints) == []
        assert not world.frozen

    played(tmp_path, play)
    with tarfile.open(target) as tar:
        assert tar.extractfile("checkpoint/pages-1.img").read() == b"secret"
        assert [one["destination"] for one in json.load(tar.extractfile("bind.mounts"))] == ["/data"]
        assert "archive" not in tar.getnames()
    assert not temporary_of(target, "c1").exists()


def test_a_container_can_be_removed_while_its_archive_is_written(tmp_path, monkeypatch):
    target, writing, go_on = tmp_path / "c.tar", threading.Event(), threading.Event()

    def slowly(*arguments):
        writing.set()
        assert go_on.wait(SECONDS)
        write_archive(*arguments)

    monkeypatch.setattr(noded.engine.checkpoints, "write_archive", slowly)

    async def play(world):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.checkpoints.checkpoint, "c1", str(target), 0)
            try:
                assert await trio.to_thread.run_sync(writing.wait, SECONDS)
                world.container.lock.acquire_nowait()  # as a removal does
                assert not world.frozen
                world.container.interrupt_checkpoint()  # nothing left to interrupt
            finally:
                go_on.set()

    played(tmp_path, play)
    assert tarfile.is_tarfile(target)


def test_a_stop_interrupts_the_checkpoint_that_keeps_the_container_frozen(tmp_path):
    target = tmp_path / "c.tar"

    async def play(world):
        world.hang = True

        async def refused():
            with pytest.raises(Aborted, match="was stopped"):
                await world.checkpoints.checkpoint("c1", str(target), 0)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await world.criu.wait()
            world.container.interrupt_checkpoint()
        assert not world.frozen
        assert os.listdir(world.layout.checkpoints) == []

    played(tmp_path, play)
    assert not target.exists()


def test_a_bind_mount_that_does_not_answer_holds_up_neither_the_container_nor_the_archive(
    tmp_path, monkeypatch
):
    dead = threading.Event()

    def look(source):
        assert dead.wait(SECONDS)
        return ""

    monkeypatch.setattr(noded.engine.checkpoints, "_look", look)
    monkeypatch.setattr(noded.engine.checkpoints, "_LOOK_SECONDS", 0.01)

    async def play(world):
        try:
            await world.checkpoints.checkpoint("c1", str(tmp_path / "c.tar"), 0)
        finally:
            dead.set()

    played(tmp_path, play)
    with tarfile.open(tmp_path / "c.tar") as tar:
        assert "bind.mounts" not in tar.getnames()


def test_a_container_that_cannot_be_thawed_says_so_and_is_tried_until_it_goes_on(tmp_path, monkeypatch):
    # No mock clock here: it jumps ahead while threads work.
    monkeypatch.setattr(noded.engine.thaws, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(noded.engine.thaws, "_LONGEST_DELAY_SECONDS", 0.02)

    async def play(world):
        world.failures = 1_000_000
        with pytest.raises(Unavailable, match="cannot be written"):
            await world.checkpoints.checkpoint("c1", str(tmp_path / "c.tar"), 0)
        assert world.frozen
        assert dict(world.container.view.info)["frozen"] == "the cgroup cannot be written"
        assert (world.bundle / "checkpointing").exists()
        world.failures = 2
        await world.resumed.wait()
        await trio.testing.wait_all_tasks_blocked()
        assert not world.frozen
        assert "frozen" not in dict(world.container.view.info)
        assert not (world.bundle / "checkpointing").exists()

    played(tmp_path, play)


def test_nobody_tries_to_thaw_a_container_that_has_ended(tmp_path):
    async def play(world):
        world.frozen, world.failures = True, 1_000_000
        mark_frozen(world.container)
        with pytest.raises(Unavailable):
            await world.thaws.recover(world.container)
        await world.container.end(Exit(137, 1))
        await trio.testing.wait_all_tasks_blocked()
        left = world.failures
        await trio.sleep(500)
        assert world.failures == left
        assert "frozen" not in dict(world.container.view.info)

    played(tmp_path, play, trio.testing.MockClock(autojump_threshold=0.01))


def test_the_next_start_removes_what_a_killed_daemon_left_of_a_checkpoint(tmp_path):
    target = tmp_path / "c.tar"
    temporary = temporary_of(target, "gone")

    async def play(world):
        directory = world.layout.checkpoint("gone")  # of a container that is removed since
        (directory / "files" / "checkpoint").mkdir(parents=True)
        (directory / "files" / "checkpoint" / "pages-1.img").write_bytes(b"secret")
        (directory / "archive").write_bytes(os.fsencode(temporary))
        world.layout.checkpoint("begun").mkdir()
        temporary.write_bytes(b"secret")
        target.write_bytes(b"an earlier archive")
        await world.checkpoints.sweep()
        assert os.listdir(world.layout.checkpoints) == []

    played(tmp_path, play)
    assert not temporary.exists()
    assert target.read_bytes() == b"an earlier archive"


def test_a_temporary_file_of_an_earlier_try_is_replaced(tmp_path):
    source, target = tmp_path / "source", tmp_path / "c.tar"
    source.mkdir()
    (source / "file").write_bytes(b"new")
    temporary = temporary_of(target, "c1")
    temporary.write_bytes(b"half")

    async def main():
        await trio.to_thread.run_sync(write_archive, source, target, temporary)

    trio.run(main)
    assert sorted(os.listdir(tmp_path)) == ["c.tar", "source"]
    with tarfile.open(target) as tar:
        assert tar.extractfile("file").read() == b"new"


def test_a_long_file_is_read_no_further_once_the_reader_is_cancelled():
    read = []

    def copy(scope):
        reader = InterruptibleReader(io.BytesIO(b"abc"))
        read.append(reader.read(1))
        trio.from_thread.run_sync(scope.cancel)
        read.append(reader.read(1))

    async def main():
        with trio.CancelScope() as scope:
            await trio.to_thread.run_sync(copy, scope)
        assert scope.cancelled_caught

    trio.run(main)
    assert read == [b"a"]
