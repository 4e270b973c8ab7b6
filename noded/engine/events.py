"""Events of pods and containers, told after the database knows them, to bounded subscribers.

Theory of operation. Whoever commits a change publishes what it meant; that costs nothing but a
sequence number while nobody listens. Each subscriber has a ring of its own. One that does not keep up
loses its subscription, never single events: it is told so, reads the lists and subscribes again.

Publishers run in trio, subscribers in asyncio, both in one thread: the hand-over is a deque and a
callback, no lock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import IntEnum

from noded.errors import Aborted, ResourceExhausted
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.views import ContainerView, SandboxView

CAPACITY = 1024  # some 30 s of the fastest churn a node manages
MOST_SUBSCRIBERS = 16  # kubelet is one


class EventKind(IntEnum):
    """CRI `ContainerEventType`."""

    CREATED = 0
    STARTED = 1
    STOPPED = 2
    DELETED = 3


@dataclass(frozen=True, eq=False)
class LifeEvent:
    """What happened, and how the pod looked right after it.

    Args:
        sequence: grows by one with each event of the daemon's life.
        id: of the container, or of the sandbox for an event of the pod itself.
        at_ns: wall clock, but never the same or earlier than that of the event before.
        containers: all that clients see of the pod's containers.
    """

    sequence: int
    kind: EventKind
    id: str
    at_ns: int
    sandbox: SandboxView
    containers: tuple[ContainerView, ...]


class Subscription:
    """The receiving end. `wake` is called when there is something to take, or the end."""

    def __init__(self, wake: Callable[[], None], capacity: int) -> None:
        self._wake = wake
        self._capacity = capacity
        self._waiting: deque[LifeEvent] = deque()
        self._lost = 0

    def offer(self, event: LifeEvent) -> bool:
        """Put an event in; False when the subscriber has fallen behind and is cut off."""
        if self._lost or len(self._waiting) >= self._capacity:
            self._lost += len(self._waiting) + 1
            self._waiting.clear()
            self._wake()
            return False
        self._waiting.append(event)
        self._wake()
        return True

    def take(self) -> LifeEvent | None:
        """The next event, None when there is none yet.

        Raises: Aborted when the subscriber has fallen behind; nothing comes after that.
        """
        if self._lost:
            raise Aborted(
                f"{self._lost} events were not taken in time: list pods and containers, then subscribe again"
            )
        return self._waiting.popleft() if self._waiting else None


class Events:
    """Numbers events and hands them out. The newest state of a pod comes from its views.

    Args:
        containers_of: the containers of a sandbox by the sandbox's id.
        capacity: events that a subscriber may leave waiting.
    """

    def __init__(
        self, containers_of: Callable[[str], Collection[ContainerView]], capacity: int = CAPACITY
    ) -> None:
        self._containers_of = containers_of
        self._capacity = capacity
        self._subscriptions: list[Subscription] = []
        self._sequence = 0
        self._last_ns = 0
        self._observers: list[Callable[[EventKind, SandboxView, ContainerView | None], None]] = []
        self.overflows = 0  # subscriptions that were cut off

    @property
    def sequence(self) -> int:
        """Number of the last event, 0 before the first."""
        return self._sequence

    def observe(self, observer: Callable[[EventKind, SandboxView, ContainerView | None], None]) -> None:
        """Call `observer` in place with every event; it must be quick and must not raise."""
        self._observers.append(observer)

    def subscribe(self, wake: Callable[[], None]) -> Subscription:
        """Follow all events from now on. Raises: ResourceExhausted for too many subscribers."""
        if len(self._subscriptions) >= MOST_SUBSCRIBERS:
            raise ResourceExhausted(
                f"{MOST_SUBSCRIBERS} clients follow the events already: end one of them first"
            )
        subscription = Subscription(wake, self._capacity)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Forget a subscription. Idempotent."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def publish(self, kind: EventKind, sandbox: SandboxView, container: ContainerView | None = None) -> None:
        """Tell everybody; `container` None = an event of the sandbox itself. Never blocks."""
        self._sequence += 1
        self._last_ns = max(time.time_ns(), self._last_ns + 1)
        for observer in self._observers:
            observer(kind, sandbox, container)
        if not self._subscriptions:
            return
        event = LifeEvent(
            sequence=self._sequence,
            kind=kind,
            id=sandbox.id if container is None else container.id,
            at_ns=self._last_ns,
            sandbox=sandbox,
            containers=tuple(self._containers_of(sandbox.id)),
        )
        for subscription in tuple(self._subscriptions):
            if not subscription.offer(event):
                self.overflows += 1
                self._subscriptions.remove(subscription)


def sandbox_events(old: SandboxRecord, new: SandboxRecord) -> tuple[EventKind, ...]:
    """What a committed change of a sandbox means to clients.

    STOPPED comes when the sandbox is no longer ready, before its last container has ended; also when
    nobody asked for it, as after a reboot.
    """
    was, now = old.intent, new.intent
    if was is now:
        return ()
    if now is SandboxIntent.READY:
        return (EventKind.CREATED, EventKind.STARTED)
    if was is SandboxIntent.READY:
        return (EventKind.STOPPED,)
    if now is SandboxIntent.OWED and new.complete:
        return (EventKind.DELETED,)
    return ()


def container_events(old: ContainerRecord, new: ContainerRecord) -> tuple[EventKind, ...]:
    """What a committed change of a container means to clients.

    An exit can be recorded before StartContainer has recorded its start: then both are told at once,
    in their order.
    """
    kinds = []
    if old.intent is ContainerIntent.CREATING and new.intent is ContainerIntent.CREATED:
        kinds.append(EventKind.CREATED)
    if not _started(old) and _started(new):
        kinds.append(EventKind.STARTED)
    if old.exited is None and new.exited is not None and new.intent is not ContainerIntent.CREATING:
        kinds.append(EventKind.STOPPED)
    return tuple(kinds)


def _started(record: ContainerRecord) -> bool:
    if record.intent is ContainerIntent.STARTED:
        return True
    return record.exited is not None and record.started_at_ns > 0
