"""The service that follows the calls of the daemon and hands them on: to the journal, and to OpenTelemetry.

Calls in progress are looked at once a second, so that a crash loses the last second of them at most.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import structlog
import trio

from noded.model.timeline import Call
from noded.tracing.export import Exporter
from noded.tracing.journal import Journal
from noded.tracing.spans import CURRENT, Position, Record
from noded.wire import traceparent

log = structlog.get_logger(__name__)

# Calls that take part in what a pod goes through. The many others are recorded for a trace only.
JOURNALED = frozenset(
    {
        "RunPodSandbox",
        "StopPodSandbox",
        "RemovePodSandbox",
        "CreateContainer",
        "StartContainer",
        "StopContainer",
        "RemoveContainer",
        "PullImage",
    }
)

_PERIOD_SECONDS = 1.0
_FAREWELL_SECONDS = 5.0
_MILLION = 1_000_000
_WAITING_CALLS = 4096  # calls between two looks; more are not recorded


class Recorder:
    """Records calls. A service: `run` must be running for them to be kept.

    Args:
        exporter: where sampled calls go, None = tracing is off.
        sampling_rate: of a million calls whose client sends no trace, how many are exported.
    """

    def __init__(self, journal: Journal, exporter: Exporter | None = None, sampling_rate: int = 0) -> None:
        self._journal = journal
        self._exporter = exporter
        self._sampling_rate = sampling_rate
        self._records: deque[Record] = deque()
        self._due = trio.Event()
        self._wake: Callable[[], None] | None = None
        self._write_failed = False
        self.dropped = 0

    # the edge: called in the event loops' thread

    def begin(self, method: str, header: str) -> Record | None:
        """Record the call that the running task makes; None if this one is not recorded.

        Args:
            header: the client's `traceparent`, "" if it sent none.
        """
        exporter = self._exporter
        if exporter is None and method not in JOURNALED:
            return None
        parent = traceparent.parse(header) if header else None
        sampled = exporter is not None and (
            parent.sampled if parent is not None else random.randrange(_MILLION) < self._sampling_rate
        )
        if not sampled and method not in JOURNALED:
            return None
        if len(self._records) >= _WAITING_CALLS:
            self.dropped += 1
            return None
        record = Record(method, parent, sampled=sampled)
        CURRENT.set(Position(record, 0))
        self._records.append(record)
        if self._wake is not None:
            self._wake()
        return record

    def unwritten(self) -> list[Call]:
        """Calls of which the journal does not have the end yet."""
        return [record.snapshot() for record in self._records]

    # the service

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; then what is known is written.

        Cancellation: takes some seconds when the disk hangs.
        """
        token = trio.lowlevel.current_trio_token()

        def due() -> None:
            self._due.set()

        def wake() -> None:
            # Once per burst: the bridge's own hop brings the core to life anyway.
            if not self._due.is_set():
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(due, idempotent=True)

        self._wake = wake
        task_status.started()
        try:
            while True:
                if not self._records:
                    await self._due.wait()
                self._due = trio.Event()
                await trio.sleep(_PERIOD_SECONDS)
                await self._look()
        finally:
            self._wake = None
            with trio.move_on_after(_FAREWELL_SECONDS, shield=True):
                await self._look()
            self._journal.close()

    async def _look(self) -> None:
        news: list[Call] = []
        over: list[Record] = []
        for _ in range(len(self._records)):
            record = self._records.popleft()
            (over if record.over else self._records).append(record)
            # Not before it is known which pod it is about: until then nobody would find it.
            if record.described and record.method in JOURNALED and (part := record.news()) is not None:
                news.append(part)
        if self._exporter is not None:
            self._exporter.offer([record.snapshot() for record in over if record.sampled])
        if news:
            await trio.to_thread.run_sync(self._write, news)
        for record in over:
            record.forget()

    def _write(self, calls: Iterable[Call]) -> None:
        try:
            self._journal.write(calls)
            self._write_failed = False
        except OSError as error:
            if not self._write_failed:
                log.warning("the journal of timelines cannot be written", error=str(error))
            self._write_failed = True
