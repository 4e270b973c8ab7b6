"""Stopped processes: which are continued, which are given up, and which are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from noded.host.processes import ProcessIdentity
from noded.host.stalls import Stall, Verdict, stopped_at, wait_stalled
from tests.support.processes import kept_stopped

PERIOD_SECONDS = 0.05
LEAVE, CONTINUE, GIVE_UP = Verdict.LEAVE, Verdict.CONTINUE, Verdict.GIVE_UP


def judge(*looks):
    """The verdicts on a process that was stopped at these counts of switches (None: not stopped)."""
    stall, verdicts = Stall(), []
    for count in looks:
        verdicts.append(stall.look(count))
        if verdicts[-1] is GIVE_UP:
            break
        if verdicts[-1] is CONTINUE:
            stall.was_continued()
    return verdicts


def test_a_process_that_stays_stopped_is_continued_and_when_stopped_again_given_up():
    assert judge(5, 5, 7, 7) == [LEAVE, CONTINUE, LEAVE, GIVE_UP]


def test_one_that_a_continue_does_not_move_is_given_up_a_full_period_later():
    assert judge(5, 5, 5, 5) == [LEAVE, CONTINUE, LEAVE, GIVE_UP]


def test_one_that_runs_between_the_looks_is_left_alone_for_ever():
    assert judge(*range(100)) == [LEAVE] * 100


def test_each_stop_is_continued_once():
    assert judge(5, 5, None, 9, 9, None, 12, 12) == [LEAVE, CONTINUE, LEAVE] * 2 + [LEAVE, CONTINUE]
    # The second stop begins when somebody else had it go on.
    assert judge(5, 5, 7, 9, 9, 11, 11) == [LEAVE, CONTINUE, LEAVE, LEAVE, CONTINUE, LEAVE, GIVE_UP]


def test_one_that_could_not_be_continued_is_not_given_up_for_it():
    stall = Stall()
    assert [stall.look(5) for _ in range(4)] == [LEAVE, CONTINUE, CONTINUE, CONTINUE]


@given(st.lists(st.none() | st.integers(0, 3)))
def test_none_is_given_up_that_was_not_continued_or_that_ran_in_the_period_before(looks):
    verdicts = judge(*looks)
    for place, verdict in enumerate(verdicts):
        if verdict is GIVE_UP:
            assert looks[place] is not None
            assert looks[place] == looks[place - 1]
            assert verdicts[place - 2] is CONTINUE


@given(st.text())
def test_any_text_in_place_of_a_status_is_no_stopped_process(text):
    assert stopped_at(text) is None


@pytest.mark.parametrize(
    ("state", "count"), [("T (stopped)", 30), ("t (tracing stop)", None), ("S (sleeping)", None)]
)
def test_a_status_is_read(state, count):
    text = f"Name:\tT: (x)\nState:\t{state}\nvoluntary_ctxt_switches:\t28\nnonvoluntary_ctxt_switches:\t2\n"
    assert stopped_at(text) == count


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)


def go_on(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, process.pid, os.WCONTINUED)


async def continued(pid: int) -> None:
    await trio.to_thread.run_sync(os.waitid, os.P_PID, pid, os.WCONTINUED, abandon_on_cancel=True)


def is_stopped(pid: int) -> bool:
    return "(stopped)" in Path(f"/proc/{pid}/status").read_text()


def test_a_stopped_process_goes_on_and_is_not_given_up(sleeper):
    async def main():
        identity = ProcessIdentity.of(sleeper.pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_stalled, identity, PERIOD_SECONDS)
            stop(sleeper)
            with trio.fail_after(10):
                await continued(sleeper.pid)
            assert not is_stopped(sleeper.pid)
            await trio.sleep(4 * PERIOD_SECONDS)
            assert nursery.child_tasks, "it was given up"
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_process_that_is_stopped_again_and_again_is_given_up(sleeper):
    async def main():
        identity = ProcessIdentity.of(sleeper.pid)
        with kept_stopped(sleeper.pid), trio.fail_after(10):
            await wait_stalled(identity, PERIOD_SECONDS)

    trio.run(main)


def test_a_process_that_is_stopped_and_continued_in_turns_is_left_alone(sleeper):
    """As cpulimit does: it is found stopped at nearly every look, but has run."""

    async def limit():
        while True:
            go_on(sleeper)
            stop(sleeper)
            await trio.sleep(PERIOD_SECONDS / 10)

    async def main():
        identity = ProcessIdentity.of(sleeper.pid)
        stop(sleeper)
        with trio.move_on_after(10 * PERIOD_SECONDS) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(limit)
                await wait_stalled(identity, PERIOD_SECONDS)
        assert scope.cancelled_caught

    trio.run(main)


def test_nothing_is_looked_for_with_a_patience_of_0(sleeper):
    async def main():
        stop(sleeper)
        with trio.move_on_after(PERIOD_SECONDS) as scope:
            await wait_stalled(ProcessIdentity.of(sleeper.pid), 0)
        assert scope.cancelled_caught

    trio.run(main)
