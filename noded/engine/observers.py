"""Telling plugins of events, after the database knows them. Nothing ever waits for a plugin.

Each plugin has a queue and a task of its own: a slow one is late for itself only. A full queue
loses the newest events; the log says how many.
"""

from __future__ import annotations

import math
import time

import structlog
import trio

from noded.engine.events import EventKind
from noded.model.extension import Event
from noded.model.views import ContainerView, SandboxView
from noded.plugins import Hooks

log = structlog.get_logger(__name__)

_CAPACITY = 1024  # events that may wait for one plugin

_SANDBOX_KINDS = {
    # CREATED and STARTED of a sandbox are one fact: plugins hear of it once.
    EventKind.STARTED: "sandbox_started",
    EventKind.STOPPED: "sandbox_stopped",
    EventKind.DELETED: "sandbox_removed",
}
_CONTAINER_KINDS = {
    EventKind.CREATED: "container_created",
    EventKind.STARTED: "container_started",
    EventKind.STOPPED: "container_exited",
    EventKind.DELETED: "container_removed",
}


class Observers:
    """Hands events to the `noded_observe` hooks."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._queues = {name: trio.open_memory_channel[Event](_CAPACITY) for name in hooks.observers()}
        self._lost = dict.fromkeys(self._queues, 0)

    def tell(self, kind: EventKind, sandbox: SandboxView, container: ContainerView | None) -> None:
        """Queue an event for every plugin that observes; `noded.engine.events.Events.observe` calls it."""
        event = event_of(kind, sandbox, container, time.time_ns()) if self._queues else None
        if event is not None:
            self._queue(event)

    def blocked(self, sandbox_id: str, container_id: str, call: str) -> None:
        """Queue that a container's seccomp profile kept a system call out."""
        if self._queues:
            self._queue(
                Event("container_call_blocked", time.time_ns(), sandbox_id, container_id, detail=call)
            )

    def _queue(self, event: Event) -> None:
        for name, (entrance, _) in self._queues.items():
            try:
                entrance.send_nowait(event)
            except trio.WouldBlock:
                if self._lost[name] == 0:
                    log.warning("a plugin is too slow and loses events", plugin=name)
                self._lost[name] += 1

    async def run(self) -> None:
        """Serve the plugins until cancelled."""
        async with trio.open_nursery() as nursery:
            for name in self._queues:
                nursery.start_soon(self._serve, name)
            nursery.start_soon(trio.sleep, math.inf)

    async def _serve(self, name: str) -> None:
        async for event in self._queues[name][1]:
            await self._hooks.observe(event, name)
            if lost := self._lost[name]:
                self._lost[name] = 0
                log.warning("a plugin has lost events", plugin=name, lost=lost)


def event_of(
    kind: EventKind, sandbox: SandboxView, container: ContainerView | None, at_ns: int
) -> Event | None:
    """The event in the plugins' words, None for what they are not told."""
    if container is None:
        name = _SANDBOX_KINDS.get(kind)
        return Event(name, at_ns, sandbox.id) if name is not None else None
    ended = kind is EventKind.STOPPED
    return Event(
        _CONTAINER_KINDS[kind],
        at_ns,
        sandbox.id,
        container.id,
        exit_code=container.exit_code if ended else None,
        detail=": ".join(text for text in (container.reason, container.message) if text) if ended else "",
    )
