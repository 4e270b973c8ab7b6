"""Keeps trio going as a guest of asyncio when the kernel has no thread for it.

trio's guest mode waits for I/O in a worker thread, and starts one when none is idle. Where that fails (a pids
cgroup is full, or memory) trio's turn raises in a callback of asyncio, which logs it, and the core never gets
another turn. Here such a turn is made up for a moment later, without a thread, until there is one again.

This needs to know trio's `GuestState`, which is not public. If it is not as known, the core counts as
failed, and the process ends for the service manager to start it anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import outcome
import structlog
from trio._core._run import GuestState

log = structlog.get_logger(__name__)

_AGAIN_SECONDS = 0.05  # between turns while there is no thread: what the core waits for comes that much later


class Turns:
    """Gives trio its turns in the event loop.

    Args:
        failed: told when trio cannot be given any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._starved = False

    def soon(self, turn: Callable[[], object]) -> None:
        """`run_sync_soon_not_threadsafe` of `trio.lowlevel.start_guest_run`."""
        self._loop.call_soon(self._take, turn)

    def soon_from_any_thread(self, turn: Callable[[], object]) -> None:
        """`run_sync_soon_threadsafe` of `trio.lowlevel.start_guest_run`."""
        self._loop.call_soon_threadsafe(self._take, turn)

    def _take(self, turn: Callable[[], object]) -> None:
        try:
            turn()
        except RuntimeError as error:  # threading's, for want of a thread
            state = _state_of(turn)
            if state is None or state.runner.guest_tick_scheduled:
                self._failed(error)
                raise
            if not self._starved:
                self._starved = True
                log.error("no thread for the core: raise TasksMax= or end processes", error=str(error))
            self._loop.call_later(_AGAIN_SECONDS, self._take_without_thread, state)
        except BaseException as error:
            self._failed(error)
            raise
        else:
            self._starved = False

    def _take_without_thread(self, state: GuestState) -> None:
        state.unrolled_run_next_send = outcome.capture(state.runner.io_manager.get_events, 0)
        state.runner.guest_tick_scheduled = True
        self._take(state.guest_tick)


def _state_of(turn: Callable[[], object]) -> GuestState | None:
    """Whose turn it is: a method of the state, or a function made in one."""
    cells = getattr(turn, "__closure__", None) or ()
    for holder in (getattr(turn, "__self__", None), *(cell.cell_contents for cell in cells)):
        if isinstance(holder, GuestState):
            return holder
    return None
