"""trio as a guest of asyncio, while no thread can be started."""

from __future__ import annotations

import asyncio
import threading

import outcome
import pytest
import trio

from noded.daemon.guest import Turns

ROUNDS = 5


class NoThreads:
    """Lets threads be started, or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refuse = False
        self.refused = 0
        start = threading.Thread.start

        def limited(thread: threading.Thread) -> None:
            if self.refuse:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", limited)


async def host(core) -> object:
    """Run `core` as noded does; returns or raises what it does."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[outcome.Outcome[object]] = loop.create_future()
    turns = Turns(loop, lambda error: ended.set_result(outcome.Error(error)))
    trio.lowlevel.start_guest_run(
        core,
        run_sync_soon_threadsafe=turns.soon_from_any_thread,
        run_sync_soon_not_threadsafe=turns.soon,
        done_callback=ended.set_result,
    )
    return (await ended).unwrap()


def exhaust_idle_threads() -> threading.Event:
    """Keep every idle worker of trio busy until the event is set."""
    release = threading.Event()
    for _ in range(ROUNDS):
        trio.lowlevel.start_thread_soon(release.wait, lambda _: None)
    return release


def test_the_core_goes_on_while_no_thread_can_be_started(monkeypatch):
    threads = NoThreads(monkeypatch)

    async def core() -> str:
        release = exhaust_idle_threads()
        threads.refuse = True
        for _ in range(ROUNDS):
            await trio.sleep(0.01)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await trio.to_thread.run_sync(int)
        threads.refuse = False
        release.set()
        await trio.sleep(0.01)
        return str(await trio.to_thread.run_sync(lambda: "done"))

    assert asyncio.run(host(core)) == "done"
    assert threads.refused > 2


def test_a_turn_that_fails_otherwise_ends_the_core():
    async def main() -> None:
        failures = []
        turns = Turns(asyncio.get_running_loop(), failures.append)

        def bad() -> None:
            raise ValueError("told to fail")

        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        turns.soon(bad)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [str(one) for one in failures] == ["told to fail"]

    asyncio.run(main())
