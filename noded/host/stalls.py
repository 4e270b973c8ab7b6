"""Processes that a signal stopped: continued once, given up when they are stopped again.

An operator who stops a monitor for a while, or a program that limits its CPU time by stopping and
continuing it, must not cost a container its life. What something keeps stopped must not hold up
whoever waits for it for ever.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import structlog
import trio

from noded.errors import NodedError
from noded.host.processes import ProcessIdentity, kill_identity

_log = structlog.get_logger(__name__)


class Verdict(Enum):
    """What to do about a process after a look at it."""

    LEAVE = auto()
    CONTINUE = auto()
    GIVE_UP = auto()


@dataclass(slots=True)
class Stall:
    """What was seen of one process, look by look, a period apart.

    Attributes:
        continued: whether the present stop was ended by us once.
    """

    continued: bool = False
    _before: int | None = None

    def look(self, stopped_at: int | None) -> Verdict:
        """Judge a process by one more look.

        It stalls when it is stopped in two looks and did not run in between.

        Args:
            stopped_at: its count of context switches if a signal has it stopped, else None.
        """
        before, self._before = self._before, stopped_at
        if stopped_at is None:
            self.continued = False
            return Verdict.LEAVE
        if stopped_at == before:
            return Verdict.GIVE_UP if self.continued else Verdict.CONTINUE
        if before is not None:
            self.continued = False  # somebody else had it go on: this is another stop
        return Verdict.LEAVE

    def was_continued(self) -> None:
        """Have it be given up if it is stopped again and stays so for a period."""
        self.continued, self._before = True, None


def stopped_at(status: str) -> int | None:
    """Return a stopped process's count of context switches; None when it is not stopped.

    Each stop and each continuation of a process is a switch of all of its threads. The state of one
    that a tracer holds is another, "t".

    Args:
        status: the text of /proc/PID/status, proc(5).
    """
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    try:
        if fields["State"].split()[0] != "T":
            return None
        return int(fields["voluntary_ctxt_switches"]) + int(fields["nonvoluntary_ctxt_switches"])
    except (KeyError, ValueError, IndexError):
        return None


async def wait_stalled(identity: ProcessIdentity, seconds: float, **about: str) -> None:
    """Return when a process is to be given up because something keeps it stopped by signals.

    One that was stopped for `seconds`, at most as much longer, without running is continued, with a
    warning. One that is then found stopped again, and stays so for another `seconds`, is given up: at
    most four times `seconds` after it was first stopped. One that runs in between is left alone, and so
    is one that a tracer holds.

    The kernel tells a stop to the parent alone, and monitors outlive theirs. So it is looked for, in
    all processes at the same moments: one wake-up of the daemon serves all. With 0 it never returns.
    Cancellation: safe, no effect.

    Args:
        about: what the process serves, for the log.
    """
    stall = Stall()
    while seconds > 0:
        await trio.sleep_until((trio.current_time() // seconds + 1) * seconds)
        verdict = stall.look(_look(identity))
        if verdict is Verdict.GIVE_UP:
            return
        if verdict is Verdict.CONTINUE:
            _log.warning("stopped_process_continued", pid=identity.pid, stopped_seconds=seconds, **about)
            try:
                kill_identity(identity, signal.SIGCONT)
            except NodedError as error:  # no descriptor free, say: the next look tries again
                _log.warning("stopped_process_not_continued", pid=identity.pid, reason=str(error), **about)
            else:
                stall.was_continued()
    await trio.sleep_forever()


def _look(identity: ProcessIdentity) -> int | None:
    try:
        status = Path(f"/proc/{identity.pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    count = stopped_at(status)
    return count if count is not None and identity.alive() else None
