"""Changes that go with the next commit."""

from __future__ import annotations

import trio
import trio.testing

from noded.engine.pending import Pending


def test_a_commit_takes_what_was_noted_and_leaves_nothing() -> None:
    pending = Pending()
    pending.note({"results": (1,)})
    assert pending.get("results", ()) == (1,)
    pending.committed(pending.taken())
    assert pending.taken() == {}
    assert pending.get("results", ()) == ()


def test_what_is_noted_while_a_commit_is_on_its_way_goes_with_the_one_after_it() -> None:
    pending = Pending()
    recorded: list[dict[str, object]] = []

    async def main() -> None:
        written = trio.Event()

        async def commit() -> None:
            taken = pending.taken()
            await written.wait()
            recorded.append(taken)
            pending.committed(taken)

        pending.note({"attachments": ("a",), "results": ("old",)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit)
            await trio.testing.wait_all_tasks_blocked()
            pending.note({"results": ("new",)})
            written.set()

    trio.run(main)
    assert recorded == [{"attachments": ("a",), "results": ("old",)}]
    assert pending.taken() == {"results": ("new",)}


def test_a_commit_that_fails_takes_nothing_away() -> None:
    pending = Pending()
    pending.note({"user": "root"})
    pending.taken()
    assert pending.taken() == {"user": "root"}
