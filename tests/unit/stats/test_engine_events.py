"""Events: numbered, bounded, in order, and never lost in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.engine.events import (
    MOST_SUBSCRIBERS,
    EventKind,
    Events,
    container_events,
    sandbox_events,
)
from noded.errors import Aborted, ResourceExhausted
from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.pod import PodConfig, SandboxKey
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.runtime import Exit
from noded.model.states import SandboxState
from noded.model.views import SandboxView

CREATED, STARTED, STOPPED, DELETED = EventKind
KEY = SandboxKey("ns", "pod", "uid", 0)
POD = SandboxView("ab" * 32, PodConfig(key=KEY), "runc", SandboxState.READY, 1)


def nothing():
    """A wake-up for nobody."""


def test_events_are_numbered_and_their_times_grow():
    events = Events(lambda _: ())
    subscription = events.subscribe(nothing)
    for _ in range(100):
        events.publish(CREATED, POD)
    found = [subscription.take() for _ in range(100)]
    assert [event.sequence for event in found] == list(range(1, 101))
    times = [event.at_ns for event in found]
    assert times == sorted(set(times))
    assert subscription.take() is None


def test_every_subscriber_gets_every_event_from_its_beginning_on():
    events = Events(lambda _: ())
    early = events.subscribe(nothing)
    events.publish(CREATED, POD)
    late = events.subscribe(nothing)
    events.publish(DELETED, POD)
    assert [early.take().kind, early.take().kind] == [CREATED, DELETED]
    assert late.take().kind is DELETED


@given(st.integers(1, 20), st.integers(0, 60))
def test_a_full_ring_ends_the_subscription_and_says_how_much_was_lost(capacity, count):
    events = Events(lambda _: (), capacity)
    woken = []
    subscription = events.subscribe(lambda: woken.append(1))
    other = events.subscribe(nothing)
    for _ in range(count):
        events.publish(CREATED, POD)
        other.take()
    if count <= capacity:
        assert len(woken) == count
        assert [subscription.take().sequence for _ in range(count)] == list(range(1, count + 1))
        assert events.overflows == 0
    else:
        with pytest.raises(Aborted, match=f"{capacity + 1} events were not taken"):
            subscription.take()
        assert len(woken) == capacity + 1  # the last one to hear of its end
        assert events.overflows == 1
    assert other.take() is None


def test_a_subscriber_that_left_costs_nothing():
    events = Events(lambda _: pytest.fail("nobody listens"))
    subscription = events.subscribe(nothing)
    events.unsubscribe(subscription)
    events.unsubscribe(subscription)
    events.publish(CREATED, POD)
    assert events.sequence == 1


def test_too_many_subscribers_are_refused():
    events = Events(lambda _: ())
    for _ in range(MOST_SUBSCRIBERS):
        events.subscribe(nothing)
    with pytest.raises(ResourceExhausted, match="end one of them"):
        events.subscribe(nothing)


SANDBOX = SandboxRecord("ab" * 32, KEY, "runc", b"", PodConfig(key=KEY), 1, "boot", SandboxIntent.CREATING)


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (SandboxIntent.CREATING, SandboxIntent.READY, (CREATED, STARTED)),
        (SandboxIntent.CREATING, SandboxIntent.STOPPING, ()),
        (SandboxIntent.READY, SandboxIntent.READY, ()),
        (SandboxIntent.READY, SandboxIntent.STOPPING, (STOPPED,)),
        (SandboxIntent.STOPPING, SandboxIntent.STOPPED, ()),
        (SandboxIntent.STOPPING, SandboxIntent.OWED, (DELETED,)),
    ],
)
def test_what_a_sandbox_tells(before, after, kinds):
    old = replace(SANDBOX, intent=before, complete=before is not SandboxIntent.CREATING)
    new = replace(old, intent=after, complete=old.complete or after is SandboxIntent.READY)
    assert sandbox_events(old, new) == kinds


CONTAINER = ContainerRecord(
    "cd" * 32,
    ContainerKey(POD.id, "main", 0),
    b"",
    ContainerConfig("main", 0, "image"),
    1,
    "boot",
    ContainerIntent.CREATING,
    "sha256:1",
)
ENDED = Exit(0, 10)


def test_a_container_tells_its_life_in_order():
    created = replace(CONTAINER, intent=ContainerIntent.CREATED)
    started = replace(created, intent=ContainerIntent.STARTED, started_at_ns=5)
    ended = replace(started, exited=ENDED)
    removing = replace(ended, intent=ContainerIntent.REMOVING)
    assert container_events(CONTAINER, replace(CONTAINER, pid=7)) == ()
    assert container_events(CONTAINER, created) == (CREATED,)
    assert container_events(created, started) == (STARTED,)
    assert container_events(started, ended) == (STOPPED,)
    assert container_events(ended, removing) == ()


def test_an_exit_that_overtakes_the_start_tells_both_once():
    created = replace(CONTAINER, intent=ContainerIntent.CREATED)
    ended = replace(created, exited=ENDED, started_at_ns=5)
    late = replace(ended, intent=ContainerIntent.STARTED)
    assert container_events(created, ended) == (STARTED, STOPPED)
    assert container_events(ended, late) == ()


def test_a_container_killed_before_its_start_tells_only_its_end():
    created = replace(CONTAINER, intent=ContainerIntent.CREATED)
    assert container_events(created, replace(created, exited=ENDED)) == (STOPPED,)


def test_a_failed_create_tells_nothing():
    assert container_events(CONTAINER, replace(CONTAINER, intent=ContainerIntent.REMOVING)) == ()
    assert container_events(CONTAINER, replace(CONTAINER, exited=ENDED)) == ()
