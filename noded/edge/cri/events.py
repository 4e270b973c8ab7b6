"""Container events as a stream; checkpoints, which are refused for now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from noded.edge.cri.core import Events
from noded.edge.cri.info import SERVICE
from noded.edge.cri.statuses import Statuses
from noded.edge.deadline import Deadline
from noded.edge.method import Method, server_stream
from noded.engine.events import LifeEvent
from noded.proto.runtime import v1
from noded.wire.protobuf import number, record


class EventService:
    """Streams what happens to containers and pods from the moment of the call."""

    def __init__(self, events: Events, statuses: Statuses) -> None:
        self._events = events
        self._statuses = statuses

    def methods(self) -> list[Method]:
        return [
            server_stream(
                SERVICE, "GetContainerEvents", v1.GetEventsRequest, v1.ContainerEventResponse, self.follow
            ),
        ]

    async def follow(self, request: v1.GetEventsRequest, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        """Never ends by itself. Raises: Aborted when the client reads too slowly."""
        more = asyncio.Event()
        # The publisher calls `set` from a trio task, but in this thread, within a turn of this loop.
        subscription = self._events.subscribe(more.set)
        try:
            while True:
                more.clear()
                while (event := subscription.take()) is not None:
                    yield self._encode(event)
                await more.wait()
        finally:
            self._events.unsubscribe(subscription)

    def _encode(self, event: LifeEvent) -> bytes:
        return b"".join(
            (
                record(1, event.id.encode()),
                number(2, int(event.kind)),
                number(3, event.at_ns),
                record(4, self._statuses.sandbox(event.sandbox)),
                self._statuses.records(5, event.containers),
            )
        )
