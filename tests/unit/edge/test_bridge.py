"""Calls from asyncio into trio: answers, cancels, deadlines, and the end of the core."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import trio

from noded.edge.bridge import Bridge
from noded.engine.operations import CALLER, Operations
from noded.errors import DeadlineExceeded, NotFound, Unavailable

LONG_SECONDS = 60.0


def run(test: Callable[[Bridge, trio.CancelScope], Awaitable[None]]) -> None:
    """Run a test in asyncio beside a trio guest."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        bridge, scope, ended, opened = (
            Bridge(),
            trio.CancelScope(),
            loop.create_future(),
            loop.create_future(),
        )

        async def core() -> None:
            ready = trio.Event()
            ready.set()
            with scope:
                async with trio.open_nursery() as nursery:
                    bridge.open(nursery, ready)
                    opened.set_result(None)
                    await trio.sleep_forever()

        trio.lowlevel.start_guest_run(
            core,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )
        await opened
        try:
            await test(bridge, scope)
        finally:
            scope.cancel()
            (await ended).unwrap()

    asyncio.run(main())


def test_an_answer_and_an_error_come_back():
    async def test(bridge, scope):
        async def work(value):
            await trio.lowlevel.checkpoint()
            return value * 2

        async def fail():
            raise NotFound("nothing here")

        assert await bridge.call(work, 21) == 42
        with pytest.raises(NotFound, match="nothing here"):
            await bridge.call(fail)

    run(test)


def test_a_cancelled_caller_returns_after_the_work_has_unwound():
    events = []

    async def test(bridge, scope):
        started = asyncio.Event()

        async def work():
            started.set()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.01)
                events.append("unwound")

        task = asyncio.ensure_future(bridge.call(work, detach=True))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        events.append("returned")

    run(test)
    assert events == ["unwound", "returned"]


def test_at_the_deadline_detached_work_goes_on_and_the_caller_counts_as_gone():
    seen = {}

    async def test(bridge, scope):
        finished = asyncio.Event()
        operations = {}

        async def work():
            async with trio.open_nursery() as nursery:
                shared = operations.setdefault("all", Operations(nursery))

                async def slow(operation):
                    operation.stage = lambda: "network"
                    await trio.sleep(0.1)
                    return 7

                seen["value"] = await shared.join("key", "creating pod sandbox ns/web", slow)
                seen["gone"] = CALLER.get().gone
            finished.set()

        with pytest.raises(
            DeadlineExceeded, match=r"creating pod sandbox ns/web: 0 s so far, at network; it goes on"
        ):
            await bridge.call(work, deadline_seconds=0.02, detach=True)
        await finished.wait()

    run(test)
    assert seen == {"value": 7, "gone": True}


def test_at_the_deadline_other_work_is_cancelled():
    events = []

    async def test(bridge, scope):
        loop = asyncio.get_running_loop()
        now = loop.time

        async def work():
            # The deadline passes now; a short one could pass before the work has begun.
            loop.time = lambda: now() + 2 * LONG_SECONDS
            try:
                await trio.sleep_forever()
            finally:
                events.append("unwound")

        with pytest.raises(DeadlineExceeded):
            await bridge.call(work, deadline_seconds=LONG_SECONDS)
        assert events == ["unwound"]

    run(test)


def test_calls_in_flight_fail_when_the_core_ends():
    async def test(bridge, scope):
        task = asyncio.ensure_future(bridge.call(trio.sleep_forever))
        await asyncio.sleep(0)
        bridge.close("noded failed and restarts: try again in a moment")
        with pytest.raises(Unavailable, match="try again"):
            await task
        with pytest.raises(Unavailable):
            await bridge.call(trio.sleep_forever)

    run(test)
