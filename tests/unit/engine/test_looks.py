"""Looks at paths that do not answer."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from noded.engine.looks import Looks

SECONDS = 10.0


def test_all_who_ask_for_a_path_wait_for_one_look():
    gate, runs = threading.Event(), []

    def look(path: str) -> str:
        runs.append(path)
        assert gate.wait(SECONDS)
        return f"{path} seen"

    async def main() -> None:
        looks, answers = Looks(), []

        async def ask() -> None:
            answers.append(await looks.ask("/a", look))

        with trio.fail_after(SECONDS):
            with trio.CancelScope() as gone:
                gone.cancel()
                await looks.ask("/a", look)  # its look goes on
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                gate.set()
        assert answers == ["/a seen"] * 5

    trio.run(main)
    assert runs == ["/a"]


def test_hung_looks_do_not_use_up_the_threads_of_others():
    gate = threading.Event()

    def look(path: str) -> str:
        assert gate.wait(SECONDS)
        return path

    async def main() -> None:
        looks = Looks()
        limit = int(trio.to_thread.current_default_thread_limiter().total_tokens)
        with trio.fail_after(SECONDS):
            async with trio.open_nursery() as nursery:
                for number in range(limit + 1):
                    nursery.start_soon(looks.ask, f"/{number}", look)
                await trio.testing.wait_all_tasks_blocked()
                assert await trio.to_thread.run_sync(lambda: 1) == 1
                gate.set()

    trio.run(main)


def test_a_failed_look_fails_those_who_asked_and_the_next_one_looks_anew():
    answers = iter([OSError("gone"), "/a"])

    def look(_: str) -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def main() -> None:
        looks = Looks()
        with pytest.raises(OSError, match="gone"):
            await looks.ask("/a", look)
        assert await looks.ask("/a", look) == "/a"

    trio.run(main)
