"""Steps of the call in progress, noted by whoever takes them.

Theory of operation. A context variable says which call and which of its steps the running task works
for; tasks and worker threads inherit it. `with span("...")` notes one step below that. In a task that
works for no recorded call it does next to nothing.

A call is *held* by the RPC itself and by operations that outlive it. What tasks do after the last one has
let go is not part of the call, although those tasks may have inherited its variable.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import replace
from types import TracebackType
from typing import NamedTuple

from noded.model.timeline import NO_ATTRIBUTES, Call, Span, Subject
from noded.wire.traceparent import TraceParent

_MOST_SPANS = 1000  # of one call; an image has 127 layers at most
_ERROR_CHARACTERS = 500
_SHORT_WAIT_NS = 1_000_000


class Position(NamedTuple):
    """Where a task is: in which step (0 = none yet) of which call."""

    record: Record
    span: int


class _Begun(NamedTuple):
    """A step in progress."""

    number: int
    parent: int
    name: str
    start_ns: int
    attributes: Mapping[str, str]


CURRENT: ContextVar[Position | None] = ContextVar("noded_span", default=None)


class Record:
    """One call while it is made. Written by the event loops' thread and by worker threads.

    Args:
        parent: what the client said of its own trace.
        sampled: its spans are exported.
    """

    def __init__(self, method: str, parent: TraceParent | None, *, sampled: bool) -> None:
        self._started_ns = time.monotonic_ns()  # intervals must not follow a clock that is being set
        self._wall_ns = time.time_ns()
        random = secrets.token_hex(24)
        self._call = Call(
            id=random[:16],
            method=method,
            trace_id=parent.trace_id if parent else random[16:],
            parent_id=parent.span_id if parent else "",
            start_ns=self._wall_ns,
            end_ns=0,
        )
        self.method = method
        self.sampled = sampled
        self.holders = 1
        self.lost = 0
        self._ids = itertools.count(1)
        self._ended: list[Span] = []
        self._open: dict[int, _Begun] = {}
        self._told = 0  # how many of `_ended` have been taken
        self._news = True

    def now_ns(self) -> int:
        """ns since the epoch, by a clock that only goes forward."""
        return self.wall_ns(time.monotonic_ns())

    def wall_ns(self, monotonic_ns: int) -> int:
        return self._wall_ns + monotonic_ns - self._started_ns

    def describe(self, subject: Subject, container: str) -> None:
        """Say what it is about."""
        self._call = replace(self._call, subject=subject, container=container)
        self._news = True

    @property
    def described(self) -> bool:
        return self._call.subject is not None

    def begin(self, name: str, parent: int, attributes: Mapping[str, str]) -> int:
        """Begin a step; 0 = there are too many."""
        number = next(self._ids)
        if number > _MOST_SPANS:
            self.lost += 1
            return 0
        self._open[number] = _Begun(number, parent, name, self.now_ns(), attributes)
        self._news = True
        return number

    def end(self, number: int, error: str, attributes: Mapping[str, str], *, least_ns: int) -> None:
        """End a step, and forget it if it was short and no failure."""
        begun = self._open.pop(number, None)
        if begun is None:  # the call was over before
            return
        end_ns = self.now_ns()
        if error or end_ns - begun.start_ns >= least_ns:
            _, parent, name, start_ns, _ = begun
            self._ended.append(Span(number, parent, name, start_ns, end_ns, error, attributes))
        self._news = True

    def add(self, name: str, parent: int, start_ns: int, end_ns: int, attributes: Mapping[str, str]) -> int:
        """Note a step that somebody else timed; returns its id, 0 = there are too many."""
        number = next(self._ids)
        if number > _MOST_SPANS:
            self.lost += 1
            return 0
        self._ended.append(Span(number, parent, name, start_ns, end_ns, "", attributes))
        self._news = True
        return number

    def finish(self, error: str) -> None:
        """The RPC has been answered."""
        self._call = replace(self._call, end_ns=self.now_ns(), error=error[:_ERROR_CHARACTERS])
        self.let_go()

    def let_go(self) -> None:
        """One holder less."""
        self.holders -= 1
        self._news = True

    def snapshot(self) -> Call:
        """All that is known now."""
        return replace(self._call, spans=(*self._ended, *self._unended()))

    def news(self) -> Call | None:
        """What is new since the last time, None if nothing is; steps in progress are new until they end."""
        if not self._news:
            return None
        self._news = False  # before the look: a thread may end a step meanwhile
        ended = self._ended[self._told :]
        self._told += len(ended)
        return replace(self._call, spans=(*ended, *self._unended()))

    def _unended(self) -> list[Span]:
        # `list` at once: a thread may begin or end a step meanwhile.
        return [
            Span(number, parent, name, start_ns, 0, "", attributes)
            for number, parent, name, start_ns, attributes in list(self._open.values())
        ]

    @property
    def over(self) -> bool:
        """Nobody works on it any more."""
        return self.holders == 0

    def forget(self) -> None:
        """Free the steps: tasks that inherited the call may live as long as a container."""
        self._ended, self._open, self._told = [], {}, 0


class span:  # noqa: N801 # used like a function
    """One step, as a context manager. Works in tasks of both event loops and in worker threads.

    Args:
        attributes: texts about it.
    """

    __slots__ = ("_attributes", "_failure", "_least_ns", "_name", "_number", "_record", "_token")

    def __init__(self, name: str, **attributes: str) -> None:
        self._name = name
        self._attributes: Mapping[str, str] = attributes or NO_ATTRIBUTES
        self._failure = ""
        self._least_ns = 0
        self._record: Record | None = None

    def __enter__(self) -> span:
        position = CURRENT.get()
        if position is not None and position.record.holders:
            number = position.record.begin(self._name, position.span, self._attributes)
            if number:
                self._record = position.record
                self._number = number
                self._token: Token[Position | None] = CURRENT.set(Position(position.record, number))
        return self

    def note(self, **attributes: str) -> None:
        """Say more about it, before it ends."""
        if self._record is not None:
            self._attributes = {**self._attributes, **attributes}

    def fail(self, why: str) -> None:
        """Mark it as failed although it raises nothing."""
        self._failure = why[:_ERROR_CHARACTERS]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._record is None:
            return
        CURRENT.reset(self._token)
        said = self._failure if error is None else _said(error)
        self._record.end(self._number, said, self._attributes, least_ns=self._least_ns)


class wait(span):  # noqa: N801 # as `span`
    """A step that consists of waiting for somebody else: noted only if it took a millisecond."""

    __slots__ = ()

    def __init__(self, name: str, **attributes: str) -> None:
        super().__init__(name, **attributes)
        self._least_ns = _SHORT_WAIT_NS


def _said(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "cancelled"
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:_ERROR_CHARACTERS]


@contextmanager
def held() -> Iterator[None]:
    """Keep the call open: for work that goes on when its RPC has been answered."""
    position = CURRENT.get()
    if position is None or not position.record.holders:
        yield
        return
    position.record.holders += 1
    try:
        yield
    finally:
        position.record.let_go()


def about(subject: Subject, container: str = "") -> None:
    """Say which pod the call in progress is about, and which container of it."""
    position = CURRENT.get()
    if position is not None and position.record.holders:
        position.record.describe(subject, container)


def waited(name: str, since_ns: int) -> None:
    """Note a wait that ends now, unless it was short. `since_ns`: as time.monotonic_ns() told."""
    now_ns = time.monotonic_ns()
    if now_ns - since_ns >= _SHORT_WAIT_NS:
        past_span(name, since_ns, now_ns)


def past_span(name: str, start_ns: int, end_ns: int, parent: int | None = None, **attributes: str) -> int:
    """Note a step of the call in progress that somebody else took, for several calls perhaps.

    Args:
        start_ns, end_ns: as time.monotonic_ns() tells.
        parent: what this function returned for the step above, None = the one in progress.

    Returns: its id, 0 if it is not recorded.
    """
    position = CURRENT.get()
    if position is None or not position.record.holders:
        return 0
    record = position.record
    above = position.span if parent is None else parent
    return record.add(name, above, record.wall_ns(start_ns), record.wall_ns(end_ns), attributes)
