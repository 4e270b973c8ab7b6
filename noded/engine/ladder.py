"""The ladder: how kernel-scoped resources come up, and the one way they go down.

Theory of operation. An object (sandbox, container) stands on an ordered tuple of rungs. Going up
runs each `up` in order; on any error or cancellation it descends over *all* rungs, so an `up` that
half ran is undone like one that ran. Going down runs each `down` in reverse and halts at the first
failure, since a lower rung may be what the failed one still needs (a network namespace is never
removed while its CNI DEL is owed). Rollback, Stop, Remove and crash recovery are this same code.

Every `down` needs only the record and is right even if its `up` never ran.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog
import trio

from noded.engine.refusals import refusal
from noded.errors import DeadlineExceeded
from noded.tracing.spans import span

log = structlog.get_logger(__name__)


class Subject(Protocol):
    """An object on a ladder. `stage` names what is happening to it, for messages; `halted` is what kept
    the rollback of its climb from reaching the ground.
    """

    stage: str
    halted: Exception | None

    @property
    def id(self) -> str: ...


S = TypeVar("S", bound=Subject)


@dataclass(frozen=True, slots=True)
class Rung(Generic[S]):
    """One kernel-scoped resource.

    Args:
        up: acquire; may leave pieces when it fails.
        down: release; idempotent; needs only the record.
        up_seconds, down_seconds: budgets, after which the step counts as failed.
        interruptible: a cancel may cut `up` short (killing its child is safe); otherwise `up` is
            shielded and cancellation waits for the next rung.
    """

    name: str
    up: Callable[[S], Awaitable[None]]
    down: Callable[[S], Awaitable[None]]
    up_seconds: float = 60.0
    down_seconds: float = 60.0
    interruptible: bool = False


async def climb(rungs: Sequence[Rung[S]], subject: S) -> None:
    """Bring every rung up, or take all of them down again.

    Raises: the first failure; a failing rollback is attached to it as a note and leaves the record.
    Cancellation: honoured between rungs and in interruptible ones; the rollback is shielded.
    """
    try:
        for rung in rungs:
            await trio.lowlevel.checkpoint_if_cancelled()
            await _bounded(rung.up, subject, rung.name, rung.up_seconds, shield=not rung.interruptible)
        await trio.lowlevel.checkpoint_if_cancelled()  # nobody would know of what is complete now
    except BaseException as error:
        reached = subject.stage
        with trio.CancelScope(shield=True):
            try:
                await descend(rungs, subject)
            except Exception as failure:
                subject.halted = failure
                error.add_note(f"and the rollback stopped at {subject.stage}: {failure}")
                log.warning("rollback incomplete", id=subject.id, stage=subject.stage, error=str(failure))
        if not isinstance(error, trio.Cancelled):
            log.info("create failed", id=subject.id, stage=reached, error=str(error))
        raise
    subject.stage = ""


async def descend(rungs: Sequence[Rung[S]], subject: S) -> None:
    """Take every rung down, from the top. Halts at the first failure and raises it.

    Cancellation: honoured between rungs, never inside one.
    """
    for rung in reversed(rungs):
        await trio.lowlevel.checkpoint_if_cancelled()
        await _bounded(rung.down, subject, f"undo {rung.name}", rung.down_seconds, shield=True)
    subject.stage = ""


async def _bounded(
    step: Callable[[S], Awaitable[None]], subject: S, stage: str, seconds: float, *, shield: bool
) -> None:
    subject.stage = stage
    with span(stage):
        with trio.move_on_after(seconds, shield=shield) as scope:
            try:
                await step(subject)
            except OSError as error:
                raise refusal(error, f"{subject.stage} of {subject.id[:12]}") from error
            return
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"{subject.stage} of {subject.id[:12]} did not finish within {seconds:g} s"
            )
