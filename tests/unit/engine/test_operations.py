"""Joining, leaving and giving up operations."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from noded.engine.operations import CALLER, Caller, Operations
from noded.errors import Aborted, Unavailable


def run(main):
    async def outer():
        async with trio.open_nursery() as nursery:
            await main(Operations(nursery))
            nursery.cancel_scope.cancel()

    trio.run(outer, clock=trio.testing.MockClock(autojump_threshold=0))


def test_ten_callers_of_one_key_share_one_piece_of_work():
    runs, answers = [], []

    async def work(operation):
        runs.append(1)
        await trio.sleep(1)
        return "result"

    async def main(operations):
        async def caller():
            answers.append(await operations.join("key", "title", work))

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(caller)

    run(main)
    assert len(runs) == 1
    assert answers == ["result"] * 10


def test_every_waiter_gets_the_error_of_the_work():
    errors = []

    async def work(operation):
        await trio.sleep(1)
        raise Unavailable("no")

    async def main(operations):
        async def caller():
            with pytest.raises(Unavailable):
                await operations.join("key", "title", work)
            errors.append(1)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(caller)
            nursery.start_soon(caller)

    run(main)
    assert len(errors) == 2


def test_the_last_waiter_to_leave_cancels_the_work_and_waits_for_its_unwinding():
    events = []

    async def work(operation):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            events.append("unwound")

    async def main(operations):
        async with trio.open_nursery() as nursery:
            scopes = [trio.CancelScope(), trio.CancelScope()]

            async def caller(scope):
                with scope:
                    await operations.join("key", "title", work)
                events.append("left")

            for scope in scopes:
                nursery.start_soon(caller, scope)
            await trio.testing.wait_all_tasks_blocked()
            scopes[0].cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert events == ["left"]
            scopes[1].cancel()

    run(main)
    assert events == ["left", "unwound", "left"]


def test_a_newcomer_during_the_unwinding_starts_the_work_anew():
    runs = []

    async def work(operation):
        runs.append(1)
        if len(runs) == 1:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(5)
        return len(runs)

    async def main(operations):
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first():
                with scope:
                    await operations.join("key", "title", work)

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()  # the work unwinds now
            assert await operations.join("key", "title", work) == 2

    run(main)


def test_cancelling_a_key_aborts_its_waiters():
    async def work(operation):
        await trio.sleep_forever()

    async def main(operations):
        async with trio.open_nursery() as nursery:

            async def caller():
                with pytest.raises(Aborted):
                    await operations.join("key", "title", work)

            nursery.start_soon(caller)
            await trio.testing.wait_all_tasks_blocked()
            await operations.cancel("key")
            await operations.cancel("another key")  # nothing to do

    run(main)


def test_the_caller_can_say_what_it_waits_for():
    async def work(operation):
        operation.stage = lambda: "network"
        await trio.sleep(3)

    async def main(operations):
        caller = Caller()
        CALLER.set(caller)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(operations.join, "key", "creating pod sandbox ns/web", work)
            await trio.testing.wait_all_tasks_blocked()
            assert caller.doing().startswith("creating pod sandbox ns/web: ")
            assert caller.doing().endswith(", at network")

    run(main)
