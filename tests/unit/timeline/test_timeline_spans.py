"""Steps are noted for the call that a task works for, and for no other."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from noded.model.timeline import Subject
from noded.tracing import spans
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder
from noded.tracing.spans import CURRENT, Position, Record, about, held, past_span, span, wait


def begun() -> Record:
    record = Record("RunPodSandbox", None, sampled=False)
    CURRENT.set(Position(record, 0))
    return record


def tree(record: Record) -> list[tuple[str, str]]:
    found = record.snapshot().spans
    names = {one.id: one.name for one in found} | {0: ""}
    return [(names[one.parent], one.name) for one in sorted(found, key=lambda one: one.id)]


def test_steps_nest_through_tasks_and_threads():
    async def main() -> None:
        record = begun()

        async def child() -> None:
            with span("child"):
                await trio.to_thread.run_sync(in_thread)

        def in_thread() -> None:
            with span("thread"):
                pass

        with span("outer"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(child)
            with span("after"):
                pass
        with span("last"):
            pass
        assert tree(record) == [
            ("", "outer"), ("outer", "child"), ("child", "thread"), ("outer", "after"), ("", "last"),
        ]  # fmt: skip

    trio.run(main)


def test_without_a_call_nothing_is_noted():
    async def main() -> None:
        CURRENT.set(None)
        with span("one") as step:
            step.note(key="value")
            step.fail("no")
        with held():
            about(Subject("", "", ""))
        assert past_span("past", 0, 1) == 0

    trio.run(main)


def test_a_failure_is_noted_and_passed_on(monkeypatch):
    # On a busy machine any wait may be long.
    monkeypatch.setattr("noded.tracing.spans._SHORT_WAIT_NS", 3_600_000_000_000)

    async def main() -> None:
        record = begun()
        with pytest.raises(ValueError, match="first"), span("step"):
            raise ValueError("first\nsecond")
        with trio.move_on_after(0), span("cancelled"):
            await trio.sleep_forever()
        with wait("short"):
            pass
        with pytest.raises(ValueError, match="short"), wait("failed wait"):
            raise ValueError("short")
        assert [(one.name, one.error) for one in record.snapshot().spans] == [
            ("step", "first"), ("cancelled", "cancelled"), ("failed wait", "short"),
        ]  # fmt: skip

    trio.run(main)


def test_a_task_that_outlives_its_call_adds_nothing_to_it():
    async def main() -> None:
        record = begun()
        go = trio.Event()

        async def late() -> None:
            await go.wait()
            with span("late"):
                pass

        async def operation() -> None:
            with held():
                go_on.set()
                await finished.wait()
                with span("goes on"):
                    pass

        go_on, finished = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(late)
            nursery.start_soon(operation)
            await go_on.wait()
            record.finish("")
            finished.set()
            await trio.testing.wait_all_tasks_blocked()
            assert record.over
            go.set()
        assert tree(record) == [("", "goes on")]
        record.forget()
        assert record.snapshot().spans == ()

    trio.run(main)


def test_steps_of_one_call_are_bounded():
    async def main() -> None:
        record = begun()
        for _ in range(spans._MOST_SPANS + 10):
            with span("step"):
                pass
        assert (len(record.snapshot().spans), record.lost) == (spans._MOST_SPANS, 10)

    trio.run(main)


def test_calls_reach_the_journal_while_they_run_and_when_the_service_ends(tmp_path, autojump_clock):
    async def main() -> None:
        journal = Journal(tmp_path / "timelines")
        recorder = Recorder(journal)
        async with trio.open_nursery() as nursery:
            await nursery.start(recorder.run)
            assert recorder.begin("ListContainers", "") is None
            record = recorder.begin("RunPodSandbox", "")
            assert record is not None
            about(Subject("default", "web", "u", "f" * 64))
            with span("network"):
                await trio.sleep(5)
                assert [one.name for one in journal.read()[0].spans] == ["network"]
            record.finish("INTERNAL: no")
            nursery.cancel_scope.cancel()
        last = journal.read(["web"])[-1]
        assert (last.error, [one.name for one in last.spans]) == ("INTERNAL: no", ["network"])
        assert last.spans[0].end_ns

    trio.run(main, clock=autojump_clock)


@pytest.fixture
def autojump_clock():
    from trio.testing import MockClock

    return MockClock(autojump_threshold=0.05)
