"""trio as a guest of asyncio: both loops wait in one system call."""

from __future__ import annotations

import asyncio
import os
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


async def host(core, *args, beside=None) -> object:
    """Run `core` as noded does; returns or raises what it does."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[outcome.Outcome[object]] = loop.create_future()
    turns = Turns(loop, lambda error: ended.set_result(outcome.Error(error)))
    trio.lowlevel.start_guest_run(
        core,
        *args,
        run_sync_soon_threadsafe=turns.soon_from_any_thread,
        run_sync_soon_not_threadsafe=turns.soon,
        done_callback=ended.set_result,
    )
    if beside is not None:
        await beside()
    return (await asyncio.wait_for(ended, 20)).unwrap()


def exhaust_idle_threads() -> threading.Event:
    """Keep every idle worker of trio busy, those that earlier tests left too, until the event is set."""
    release = threading.Event()
    for _ in range(ROUNDS + threading.active_count()):
        trio.lowlevel.start_thread_soon(release.wait, lambda _: None)
    return release


def test_the_core_waits_without_a_thread(monkeypatch):
    """Fails when the inside of trio has become another: then each wait takes a thread."""
    threads = NoThreads(monkeypatch)

    async def core() -> str:
        release = exhaust_idle_threads()
        threads.refuse = True
        for _ in range(ROUNDS):
            await trio.sleep(0.01)
        assert not threads.refused
        with pytest.raises(RuntimeError, match="can't start new thread"):
            await trio.to_thread.run_sync(int)
        threads.refuse = False
        release.set()
        await trio.sleep(0.01)
        return str(await trio.to_thread.run_sync(lambda: "done"))

    assert asyncio.run(host(core)) == "done"
    assert threads.refused == 1


def test_deadlines_pass_and_descriptors_wake():
    async def core():
        read, write = os.pipe()
        with trio.move_on_after(0.05) as scope:
            await trio.lowlevel.wait_readable(read)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.wait_readable, read)
            await trio.sleep(0.01)
            os.write(write, b"x")
        os.close(read)
        os.close(write)
        return scope.cancelled_caught, await trio.to_thread.run_sync(lambda: "from a thread")

    assert asyncio.run(host(core)) == (True, "from a thread")


def test_asyncio_has_its_turn_while_trio_is_never_idle():
    turns = []

    async def core():
        while len(turns) < 3:
            await trio.lowlevel.checkpoint()

    async def beside():
        for number in range(3):
            await asyncio.sleep(0)
            turns.append(number)

    asyncio.run(host(core, beside=beside))


def test_the_host_wakes_the_guest():
    async def core(box):
        event = trio.Event()
        box["wake"], box["token"] = event.set, trio.lowlevel.current_trio_token()
        await event.wait()
        return "woken"

    box = {}

    async def beside():
        await asyncio.sleep(0.02)
        box["token"].run_sync_soon(box["wake"])

    assert asyncio.run(host(core, box, beside=beside)) == "woken"


def test_what_the_core_raises_is_its_outcome():
    async def core():
        await trio.lowlevel.checkpoint()
        raise ValueError("told to fail")

    with pytest.raises(ValueError, match="told to fail"):
        asyncio.run(host(core))


def test_another_trio_takes_its_turns_itself(monkeypatch):
    monkeypatch.setattr(Turns, "_know", lambda self, guest: False)

    async def core():
        await trio.sleep(0.01)
        return "done"

    assert asyncio.run(host(core)) == "done"


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
