"""trio as a guest of asyncio in one thread, without a thread between them.

Theory of operation. `trio.lowlevel.start_guest_run` waits for trio's events in a worker thread, because
it knows nothing of its host: each wait costs two switches between threads and two wake-ups through
sockets, and where the kernel has no thread left (a pids cgroup is full, or memory) the core gets no turn
any more. On Linux an epoll descriptor can be watched like any other: asyncio watches trio's, and a timer
stands for trio's next deadline. So both loops wait in one system call.

trio has no public door for this. What is used of its `GuestState` is looked at first; where that is not as
expected, the guest runs as trio runs it, which is slower. A turn that fails, which is a defect of trio's,
counts as a failed core, and the process ends for the service manager to start it anew.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Any

import outcome
import structlog
import trio
from sniffio import thread_local as sniffio_library

log = structlog.get_logger(__name__)

# Turns that trio may take before asyncio has one, while it need not wait. What a worker thread has done
# takes two: one of them to hear of it.
_STRAIGHT_TURNS = 4


class Turns:
    """Gives trio its turns in the event loop.

    Args:
        failed: told when trio cannot be given any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, failed: Callable[[BaseException], None]) -> None:
        self._loop = loop
        self._failed = failed
        self._guest: Any = None
        self._poll: Callable[[float], list[tuple[int, int]]]
        self._epoll = -1
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = False

    def soon(self, turn: Callable[[], object]) -> None:
        """`run_sync_soon_not_threadsafe` of `trio.lowlevel.start_guest_run`.

        Its first call begins the turns that are given here, and there is no other.
        """
        if self._guest is None and self._know(getattr(turn, "__self__", None)):
            self._loop.call_soon(self._turn)
        else:
            self._loop.call_soon(self._other_turn, turn)

    def soon_from_any_thread(self, turn: Callable[[], object]) -> None:
        """`run_sync_soon_threadsafe` of `trio.lowlevel.start_guest_run`."""
        self._loop.call_soon_threadsafe(self._other_turn, turn)

    def _know(self, guest: Any) -> bool:
        try:
            epoll, self._poll = guest.runner.io_manager._epoll, guest.runner.io_manager.get_events
            known = (
                isinstance(epoll, select.epoll)
                and isinstance(guest.runner.guest_tick_scheduled, bool)
                and callable(guest.unrolled_run_gen.send)
                and callable(guest.done_callback)
            )
        except AttributeError:
            known = False
        if not known:
            log.info("trio waits for its events in a thread", reason="its inside is not as expected")
            return False
        self._guest, self._epoll = guest, epoll.fileno()
        self._loop.add_reader(self._epoll, self._ready)
        return True

    def _other_turn(self, turn: Callable[[], object]) -> None:
        try:
            turn()
        except BaseException as error:
            self._failed(error)
            raise

    def _ready(self) -> None:
        if self._waiting:
            self._turn()

    def _turn(self) -> None:
        runner = self._guest.runner
        self._waiting = False
        runner.guest_tick_scheduled = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        before, sniffio_library.name = sniffio_library.name, "trio"
        try:
            for _ in range(_STRAIGHT_TURNS):
                timeout = outcome.capture(self._poll, 0).send(self._guest.unrolled_run_gen)
                if timeout > 0:
                    break
        except StopIteration:
            self._end(runner.main_task_outcome)
            return
        except trio.TrioInternalError as error:
            self._end(outcome.Error(error))
            return
        except BaseException as error:
            self._loop.remove_reader(self._epoll)
            self._failed(error)
            raise
        finally:
            sniffio_library.name = before
        if timeout <= 0:
            self._loop.call_soon(self._turn)
            return
        runner.guest_tick_scheduled = False
        self._waiting = True
        self._timer = self._loop.call_later(timeout, self._turn)

    def _end(self, result: outcome.Outcome[Any]) -> None:
        self._loop.remove_reader(self._epoll)
        self._guest.done_callback(result)
