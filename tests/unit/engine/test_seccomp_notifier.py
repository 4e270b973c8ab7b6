"""Reports of blocked system calls are read in the end, whatever fails meanwhile."""

from __future__ import annotations

import itertools
import json
import threading
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from noded.engine import seccomp_notifier
from noded.engine.seccomp_notifier import SeccompNotifier
from noded.errors import ResourceExhausted
from noded.host.inotify import Inotify
from noded.model.paths import Layout
from noded.model.runtime import Exit
from noded.spec.seccomp.annotations import NotifyMode

BLOCKED = {f"{0xC000003E}:165": 1}  # mount(2) on x86-64


class Watched:
    """A container whose blocked calls are told."""

    def __init__(self, identity, mode=NotifyMode.STOP):
        self.id = identity
        self.exited = trio.Event()
        self.record = SimpleNamespace(seccomp_mode=mode, key=SimpleNamespace(name="web"))
        self.sandbox = SimpleNamespace(id="s", record=SimpleNamespace(key="pod"))


class World:
    """A notifier over a directory of reports."""

    def __init__(self, tmp_path, nursery):
        self.layout = Layout(tmp_path / "root", tmp_path / "state")
        self.layout.seccomp.mkdir(parents=True, exist_ok=True)
        self.notifier = SeccompNotifier(self.layout, None, None, nursery)
        self.notifier.kill = self.kill
        self.killed = []
        self.failures = []

    async def kill(self, container):
        if self.failures:
            raise self.failures.pop()
        self.killed.append(container.id)
        container.exited.set()

    def report(self, identity, data):
        path = self.layout.seccomp_report(identity)
        new = path.with_name(f"{path.name}.new")
        new.write_text(data if isinstance(data, str) else json.dumps(data))
        new.rename(path)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(seccomp_notifier, "local_delays", lambda: itertools.repeat(0.01))
    monkeypatch.setattr(seccomp_notifier, "STOP_SECONDS", 0.01)


def run(tmp_path, play):
    async def main():
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                await play(World(tmp_path, nursery))
                nursery.cancel_scope.cancel()

    trio.run(main)


@pytest.mark.parametrize(
    "error", [ResourceExhausted("no inotify instance left"), OSError(24, "Too many open files")]
)
def test_a_node_without_inotify_instances_ends_nothing_and_containers_are_stopped_later(
    tmp_path, monkeypatch, error
):
    failures = [error, error]

    def instance():
        if failures:
            raise failures.pop()
        return Inotify()

    monkeypatch.setattr(seccomp_notifier, "Inotify", instance)

    async def play(world):
        container = Watched("a" * 64)
        world.notifier.watch(container)
        world.report(container.id, BLOCKED)
        await container.exited.wait()

    run(tmp_path, play)
    assert not failures


def test_a_broken_report_of_one_container_keeps_no_other_from_being_stopped(tmp_path):
    async def play(world):
        broken, sound, late = (Watched(letter * 64) for letter in "abc")
        for data in ("[]", '{"x": 1}', "{"):
            world.report(broken.id, data)
            world.notifier.watch(broken)
            assert await world.notifier.explain(broken, Exit(137, 1)) == Exit(137, 1)
        world.report(sound.id, BLOCKED)
        world.notifier.watch(sound)
        await sound.exited.wait()
        world.notifier.watch(late)
        world.report(late.id, BLOCKED)
        await late.exited.wait()
        assert broken.id not in world.killed
        world.report(broken.id, BLOCKED)
        await broken.exited.wait()

    run(tmp_path, play)


def test_a_report_that_could_not_be_read_is_read_again_without_another_event(tmp_path, monkeypatch):
    read, failures = seccomp_notifier.read_report, [OSError(24, "Too many open files")]

    def reading(path):
        if failures:
            raise failures.pop()
        return read(path)

    monkeypatch.setattr(seccomp_notifier, "read_report", reading)

    async def play(world):
        container = Watched("a" * 64)
        world.report(container.id, BLOCKED)
        world.notifier.watch(container)
        await container.exited.wait()

    run(tmp_path, play)


def test_a_container_that_could_not_be_stopped_is_stopped_later(tmp_path):
    async def play(world):
        world.failures = [OSError(24, "Too many open files")]
        container = Watched("a" * 64)
        world.report(container.id, BLOCKED)
        world.notifier.watch(container)
        await container.exited.wait()

    run(tmp_path, play)


def test_nothing_is_taken_down_for_a_container_that_tells_nothing(tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(seccomp_notifier.seccomp_holder, "end", ended.append)

    async def play(world):
        await world.notifier.down(Watched("a" * 64, mode=""))
        assert not ended
        await world.notifier.down(Watched("b" * 64))
        assert ended == [world.layout.seccomp_listener("b" * 64)]

    run(tmp_path, play)


class Counts:
    """The metric: how often each name was told of."""

    def __init__(self, world):
        self.told, self.some, self.events = {}, trio.Event(), []
        world.notifier.observe = self.observe
        world.notifier.tell = lambda *event: self.events.append(event)

    def observe(self, name, count):
        self.told[name] = self.told.get(name, 0) + count
        self.some.set()


def test_a_look_that_is_overtaken_by_a_later_one_counts_no_call_twice(tmp_path, monkeypatch):
    read, reading, go_on = seccomp_notifier.read_report, trio.Event(), threading.Event()

    def slow_at_first(path):
        found = read(path)
        if not reading.is_set():
            trio.from_thread.run_sync(reading.set)
            assert go_on.wait(30)
        return found

    monkeypatch.setattr(seccomp_notifier, "read_report", slow_at_first)

    async def play(world):
        counts = Counts(world)
        container = Watched("a" * 64, NotifyMode.LOG)
        world.report(container.id, BLOCKED)
        world.notifier.watch(container)
        await reading.wait()
        world.report(container.id, dict.fromkeys(BLOCKED, 2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.notifier._look, container.id)
            await trio.testing.wait_all_tasks_blocked(0.05)
            go_on.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        world.report(container.id, dict.fromkeys(BLOCKED, 3))
        await world.notifier._look(container.id)
        assert counts.told == {"mount": 3}
        assert counts.events == [("s", container.id, "mount")]

    run(tmp_path, play)


def test_a_daemon_after_another_tells_only_what_is_new_and_still_stops_the_container(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp_notifier.seccomp_holder, "end", lambda path: None)

    async def before(world):
        counts = Counts(world)
        container = Watched("a" * 64, NotifyMode.LOG)
        world.report(container.id, BLOCKED)
        world.notifier.watch(container)
        await counts.some.wait()
        await world.notifier._look(container.id)
        assert counts.told == {"mount": 1}

    async def after(world):
        counts = Counts(world)
        container = Watched("a" * 64)
        world.notifier.watch(container)
        await container.exited.wait()
        assert (counts.told, counts.events) == ({}, [])
        world.report(container.id, dict.fromkeys(BLOCKED, 2))
        await counts.some.wait()
        assert counts.told == {"mount": 1}
        await world.notifier.down(container)
        assert list(world.layout.seccomp.iterdir()) == []

    run(tmp_path, before)
    run(tmp_path, after)


def test_a_call_is_told_before_it_is_remembered_as_told(tmp_path, monkeypatch):
    """Else a daemon that is killed in between would leave the call untold for ever."""
    order = []

    async def play(world):
        remembered = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def write(path, told):
            order.append("remembered")
            token.run_sync_soon(remembered.set)

        monkeypatch.setattr(seccomp_notifier, "write_told", write)
        world.notifier.tell = lambda *_: order.append("told")
        container = Watched("a" * 64, NotifyMode.LOG)
        world.report(container.id, BLOCKED)
        world.notifier.watch(container)
        await remembered.wait()

    run(tmp_path, play)
    assert order == ["told", "remembered"]
