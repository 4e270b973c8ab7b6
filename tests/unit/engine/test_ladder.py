"""The ladder goes up in order, and down completely or not past a failure."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from noded.engine.ladder import Rung, climb, descend
from noded.errors import DeadlineExceeded, Unavailable


class Thing:
    """A subject that remembers what happened to it."""

    def __init__(self) -> None:
        self.id = "thing"
        self.stage = ""
        self.calls: list[str] = []


def rung(name: str, *, up_fails=False, down_fails=False, **options) -> Rung[Thing]:
    async def up(thing: Thing) -> None:
        thing.calls.append(f"+{name}")
        if up_fails:
            raise Unavailable(f"up of {name}")

    async def down(thing: Thing) -> None:
        thing.calls.append(f"-{name}")
        if down_fails:
            raise Unavailable(f"down of {name}")

    return Rung(name, up, down, **options)


def test_climbing_runs_every_rung_in_order():
    thing = Thing()
    trio.run(climb, [rung("a"), rung("b"), rung("c")], thing)
    assert thing.calls == ["+a", "+b", "+c"]
    assert thing.stage == ""


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_a_failing_rung_takes_all_rungs_down(case):
    count, failing = case
    names = [f"r{index}" for index in range(count)]
    thing = Thing()
    rungs = [rung(name, up_fails=index == failing) for index, name in enumerate(names)]
    with pytest.raises(Unavailable, match=f"up of r{failing}"):
        trio.run(climb, rungs, thing)
    assert thing.calls == [f"+{name}" for name in names[: failing + 1]] + [
        f"-{name}" for name in reversed(names)
    ]
    assert thing.stage == ""


def test_descending_halts_at_the_first_failure_and_names_its_stage():
    thing = Thing()
    with pytest.raises(Unavailable, match="down of b"):
        trio.run(descend, [rung("a"), rung("b", down_fails=True), rung("c")], thing)
    assert thing.calls == ["-c", "-b"]
    assert thing.stage == "undo b"


def test_a_failed_rollback_is_a_note_on_the_first_error():
    thing = Thing()
    with pytest.raises(Unavailable, match="up of b") as caught:
        trio.run(climb, [rung("a", down_fails=True), rung("b", up_fails=True)], thing)
    assert any("down of a" in note for note in caught.value.__notes__)
    assert thing.stage == "undo a"


def test_a_cancel_is_honoured_between_rungs_and_undoes_everything():
    thing = Thing()

    async def main() -> None:
        with trio.CancelScope() as scope:

            async def cancel(thing: Thing) -> None:
                thing.calls.append("+b")
                scope.cancel()
                await trio.lowlevel.checkpoint()  # shielded: does not end here
                thing.calls.append("b done")

            async def down(thing: Thing) -> None:
                await trio.lowlevel.checkpoint()
                thing.calls.append("-b")

            await climb([rung("a"), Rung("b", cancel, down), rung("c")], thing)
        assert scope.cancelled_caught

    trio.run(main)
    assert thing.calls == ["+a", "+b", "b done", "-c", "-b", "-a"]


def test_an_interruptible_rung_is_cut_short_by_a_cancel():
    thing = Thing()

    async def main() -> None:
        with trio.CancelScope() as scope:

            async def up(thing: Thing) -> None:
                scope.cancel()
                await trio.sleep_forever()

            async def down(thing: Thing) -> None:
                thing.calls.append("-a")

            await climb([Rung("a", up, down, interruptible=True)], thing)

    trio.run(main)
    assert thing.calls == ["-a"]


def test_a_rung_that_takes_too_long_fails_with_its_name():
    thing = Thing()

    async def hang(thing: Thing) -> None:
        await trio.sleep_forever()

    async def down(thing: Thing) -> None:
        thing.calls.append("-slow")

    with pytest.raises(DeadlineExceeded, match=r"slow of thing did not finish within 5 s"):
        trio.run(
            climb,
            [Rung("slow", hang, down, up_seconds=5.0)],
            thing,
            clock=trio.testing.MockClock(autojump_threshold=0),
        )
    assert thing.calls == ["-slow"]
