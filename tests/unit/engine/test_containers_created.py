"""Once a container is durable its client gets it, whatever what follows does."""

from __future__ import annotations

from types import SimpleNamespace

import trio
import trio.testing

from noded.engine.container_requests import ContainerRequest
from noded.engine.containers import Containers
from noded.engine.operations import Operations
from noded.model.lifecycle import ContainerIntent
from noded.spec.seccomp.annotations import NotifyMode


class World(Containers):
    """Creates one container; `after` is what comes once it is durable."""

    def __init__(self, after):
        self.made = SimpleNamespace(
            id="c1",
            stage="",
            record=SimpleNamespace(intent=ContainerIntent.CREATING, seccomp_mode=NotifyMode.RECORD),
        )
        self._registry = SimpleNamespace(
            container_of_key=lambda key: None, add_container=lambda container: None
        )
        self._nri = SimpleNamespace(enabled=True, created=after)
        self._notifier = SimpleNamespace(fulfilled=after)

    def _new(self, request):
        return self.made

    async def _climb(self, container):
        container.record.intent = ContainerIntent.CREATED

    async def work(self, operation):
        sandbox = SimpleNamespace(id="s1", ready=True, record=SimpleNamespace(key="pod"))
        config = SimpleNamespace(name="web", attempt=0)
        return await self._create(ContainerRequest(sandbox, config, b"", None, [], None, None), operation)


def test_a_failure_after_it_is_durable_fails_no_create():
    calls = []

    async def after(*arguments):
        calls.append(arguments)
        raise OSError(28, "No space left on device")

    async def main():
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                world = World(after)
                assert await Operations(nursery).join("key", "creating", world.work) is world.made

    trio.run(main)
    assert len(calls) == 2


def test_what_hangs_after_it_is_durable_delays_a_create_only():
    async def after(*arguments):
        await trio.sleep_forever()

    async def main():
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                world = World(after)
                assert await Operations(nursery).join("key", "creating", world.work) is world.made

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_client_that_leaves_after_it_is_durable_abandons_a_container_and_does_not_lose_it():
    abandoned = []

    async def after(*arguments):
        await trio.sleep(1)

    async def main():
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                world = World(after)
                with trio.move_on_after(0.5):
                    await Operations(nursery).join("key", "creating", world.work, abandoned=abandoned.append)
                assert abandoned == [world.made]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
