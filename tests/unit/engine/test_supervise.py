"""A look at a container that fails says nothing about the container: it is repeated."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import trio
import trio.testing

from noded.engine.supervise import Supervisor
from noded.errors import Unavailable
from noded.model.runtime import Exit


class World:
    """A container with a ladder and a runtime whose first looks fail."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.ended = []
        self.deleted = []
        self.id = "c1"
        self.ref = "ref"
        self.task_gone = False
        self.lock = trio.Lock()
        self.record = SimpleNamespace(key=SimpleNamespace(name="main"))

    async def sandbox_runtime(self, container):
        self._fail("sandbox")
        return self

    async def wait(self, ref):
        self._fail("wait")
        return Exit(7, 1)

    async def delete(self, ref):
        self.deleted.append(ref)

    async def release_cpus(self, container):
        pass

    async def end(self, ended):
        self._fail("end")
        self.ended.append(ended)
        return True

    def _fail(self, where):
        if self.failures and self.failures[0][0] == where:
            raise self.failures.pop(0)[1]


class NoNotifier:
    """No system calls are watched."""

    def watch(self, container):
        pass

    async def explain(self, container, ended):
        return ended


def watched(world):
    async def main():
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                supervisor = Supervisor(nursery, SimpleNamespace(active=False), NoNotifier())
                supervisor.use(world)
                supervisor.watch(world)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_failed_looks_are_repeated_and_never_taken_for_an_exit():
    world = World(
        ("sandbox", Unavailable("its plugin is missing")),
        ("wait", OSError(24, "Too many open files")),
        ("wait", asyncio.InvalidStateError("a plugin's nonsense")),
    )
    watched(world)
    assert [ended.code for ended in world.ended] == [7]
    assert world.deleted == ["ref"]


def test_an_exit_is_recorded_in_the_end_before_the_runtime_forgets_it():
    world = World(("end", OSError(28, "No space left on device")), ("end", OSError(28, "No space")))
    watched(world)
    assert [ended.code for ended in world.ended] == [7]
    assert world.deleted == ["ref"]


def test_nobody_watches_what_somebody_else_has_taken_down():
    world = World(("wait", Unavailable("gone")))
    world.task_gone = True
    watched(world)
    assert world.ended == world.deleted == []
