"""Finished creates that no client knows of."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from noded.engine.claims import Claim, Claims
from noded.engine.operations import CALLER, Caller

WAIT_SECONDS = 600.0


class Thing:
    def __init__(self) -> None:
        self.id = "thing"
        self.claim = Claim(named=False)


class World:
    """One thing, and whether it was removed."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.thing = Thing()
        self.exists = True
        self.removals = 0
        self.failure: Exception | None = None
        self.claims: Claims[Thing] = Claims(
            "thing", nursery, WAIT_SECONDS, present=lambda _: self.exists, remove=self._remove
        )

    async def _remove(self, thing: Thing) -> None:
        assert thing is self.thing
        self.removals += 1
        if self.failure is not None:
            raise self.failure
        self.exists = False


def run(scenario):
    """In virtual time."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await scenario(World(nursery))

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def as_caller(caller: Caller | None, world: World) -> None:
    token = CALLER.set(caller)
    try:
        world.claims.answer(world.thing)
    finally:
        CALLER.reset(token)


def test_a_result_that_its_caller_got_stays():
    async def scenario(world: World) -> None:
        as_caller(Caller(), world)
        await trio.sleep(2 * WAIT_SECONDS)
        assert world.thing.claim.held
        assert world.removals == 0

    run(scenario)


def test_a_result_whose_caller_is_gone_waits_for_a_retry_and_is_then_removed():
    async def scenario(world: World) -> None:
        as_caller(Caller(gone=True), world)
        await trio.sleep(WAIT_SECONDS - 1)
        assert world.removals == 0
        await trio.sleep(2)
        assert world.removals == 1

    run(scenario)


@pytest.mark.parametrize("how", ["named", "answered"])
def test_a_result_that_a_retry_got_in_time_stays(how):
    async def scenario(world: World) -> None:
        as_caller(Caller(gone=True), world)
        if how == "named":
            world.thing.claim.named = True
        else:
            as_caller(Caller(), world)
        await trio.sleep(2 * WAIT_SECONDS)
        assert world.removals == 0

    run(scenario)


def test_a_result_that_came_as_the_last_caller_left_is_removed_at_once():
    async def scenario(world: World) -> None:
        world.claims.abandon(world.thing)
        await trio.testing.wait_all_tasks_blocked()
        assert world.removals == 1

    run(scenario)


def test_a_caller_that_left_before_it_was_told_gives_its_result_back():
    async def scenario(world: World) -> None:
        caller = Caller()
        as_caller(caller, world)
        assert caller.left is not None
        await caller.left()
        assert world.removals == 1

    run(scenario)


def test_what_another_caller_was_told_of_survives_one_that_left():
    async def scenario(world: World) -> None:
        caller = Caller()
        as_caller(caller, world)
        as_caller(Caller(), world)
        assert caller.left is not None
        await caller.left()
        assert world.removals == 0

    run(scenario)


def test_what_is_gone_already_is_not_removed_again():
    async def scenario(world: World) -> None:
        world.exists = False
        as_caller(Caller(gone=True), world)
        await trio.sleep(2 * WAIT_SECONDS)
        assert world.removals == 0

    run(scenario)


def test_a_removal_that_fails_ends_no_task_but_its_own():
    async def scenario(world: World) -> None:
        world.failure = OSError("told to fail")
        world.claims.abandon(world.thing)
        await trio.testing.wait_all_tasks_blocked()
        assert world.removals == 1
        assert world.exists

    run(scenario)
