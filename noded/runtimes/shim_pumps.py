"""What reads from a shim's fifos as long as something writes there, and the observers of shims.

When the daemon ends these end, too; the fifos keep what comes then for the next daemon.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from noded.errors import FailedPrecondition, NotFound
from noded.runtimes.shim_attach import Attachments
from noded.runtimes.shim_fifos import FifoReader
from noded.runtimes.shim_log import LogFile, entries
from noded.runtimes.shim_pump import Pump
from noded.runtimes.shim_record import SHIM_LOG_FIFO, STDERR_FIFO, STDOUT_FIFO

_log = structlog.get_logger(__name__)

# What a shim may take to hand over the last output of a process that has ended.
_REST_SECONDS: Final = 3.0
_SHIM_LINE_BYTES: Final = 4096


class LogPump:
    """Carries a task's output from its fifos to its CRI log.

    Between reading from a fifo and writing to the log lie some microseconds: that is what a
    SIGKILL of the daemon can lose, one piece of at most 64 KiB of each stream.
    """

    def __init__(self, bundle: Path, log_path: str, log_max_bytes: int) -> None:
        """Opens fifos and log, which blocks. `start` or `abandon` must follow.

        Raises: FailedPrecondition or NotFound naming the log; NotFound without fifos.
        """
        self._name = bundle.name
        self._pump: Pump | None = None
        self._log = LogFile(Path(log_path) if log_path else None, log_max_bytes)
        self._readers: dict[str, FifoReader] = {}
        self.attachments = Attachments(bundle)
        try:
            self.reopen()
            self._readers["stdout"] = FifoReader(bundle / STDOUT_FIFO)
            if (bundle / STDERR_FIFO).exists():  # a terminal has one stream only
                self._readers["stderr"] = FifoReader(bundle / STDERR_FIFO)
        except BaseException:
            self.abandon()
            raise

    def start(self) -> None:
        """Begin to copy."""
        self._pump = Pump(f"log of {self._name}", self._work, self.abandon)

    def abandon(self) -> None:
        """Close everything."""
        for reader in self._readers.values():
            reader.close()
        self.attachments.close()
        self._log.close()

    def reopen(self) -> None:
        """Open the log's path anew. Raises: NotFound or FailedPrecondition naming it. Blocks."""
        try:
            self._log.reopen()
        except FileNotFoundError:
            raise NotFound(f"cannot open the log {self._log.path}: its directory does not exist") from None
        except OSError as error:
            raise FailedPrecondition(f"cannot open the log {self._log.path}: {error.strerror}") from None

    async def finish(self) -> None:
        """The process has ended: return when its last output is in the log, in bounded time."""
        for reader in self._readers.values():
            reader.expect_end()
        if self._pump is not None:
            await self._pump.stop(grace_seconds=_REST_SECONDS)

    async def _work(self) -> None:
        async with trio.open_nursery() as nursery:
            for stream, reader in self._readers.items():
                nursery.start_soon(self._copy, stream, reader)

    async def _copy(self, stream: str, reader: FifoReader) -> None:
        while data := await reader.read():
            # In a thread: a slow disk must not hold up the daemon. What was read must be written.
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._log.write, entries(stream, data, time.time_ns()))
            await self.attachments.send(stream, data)


class ShimLogPump:
    """Reads the shim's own log, which would block the shim when full, into noded's log."""

    def __init__(self, sandbox_id: str, bundle: Path) -> None:
        """Raises: NotFound without the fifo."""
        self._sandbox_id = sandbox_id
        self._reader = FifoReader(bundle / SHIM_LOG_FIFO, endless=True)
        self._pump = Pump(f"log of the shim of {sandbox_id}", self._work, self._reader.close)

    async def stop(self) -> None:
        await self._pump.stop()

    async def _work(self) -> None:
        rest = b""
        while data := await self._reader.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line[:_SHIM_LINE_BYTES].decode(errors="replace")
                _log.debug("shim_said", sandbox=self._sandbox_id, line=text)
            rest = rest[:_SHIM_LINE_BYTES]


class Pumps:
    """The pumps of one handler, by id of task or sandbox.

    A pump that has come to its end stays known until it is dropped: a second one would wait in vain.

    Args:
        log_max_bytes: see `LogFile`.
    """

    def __init__(self, log_max_bytes: int) -> None:
        self._log_max_bytes = log_max_bytes
        self._logs: dict[str, LogPump] = {}
        self._shims: dict[str, ShimLogPump] = {}
        self._watches: dict[str, Pump] = {}

    async def log(self, task_id: str, bundle: Path, log_path: str) -> LogPump:
        """Return the task's log pump, started now if it is not there, as after a restart.

        Raises: see `LogPump`. Cancellation: safe.
        """
        if task_id not in self._logs:
            pump = await trio.to_thread.run_sync(LogPump, bundle, log_path, self._log_max_bytes)
            if task_id in self._logs:  # another caller was faster
                pump.abandon()
            else:
                self._logs[task_id] = pump
                pump.start()
        return self._logs[task_id]

    def has_log(self, task_id: str) -> bool:
        return task_id in self._logs

    async def drop_log(self, task_id: str) -> None:
        """Bring the last output to the log and end the pump. Idempotent."""
        if (pump := self._logs.pop(task_id, None)) is not None:
            await pump.finish()

    def shim_log(self, sandbox_id: str, bundle: Path) -> None:
        """Read the shim's log from now on. Idempotent. Raises: NotFound without the fifo."""
        if sandbox_id not in self._shims:
            self._shims[sandbox_id] = ShimLogPump(sandbox_id, bundle)

    def watch(self, sandbox_id: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run an observer of the sandbox, one at a time."""
        current = self._watches.get(sandbox_id)
        if current is None or current.ended.is_set():
            self._watches[sandbox_id] = Pump(f"watch of {sandbox_id}", work, lambda: None)

    async def stop_watch(self, sandbox_id: str) -> None:
        """End the observer. Idempotent."""
        if (watch := self._watches.pop(sandbox_id, None)) is not None:
            await watch.stop()

    async def drop_sandbox(self, sandbox_id: str) -> None:
        """End what belongs to a sandbox. Idempotent."""
        await self.stop_watch(sandbox_id)
        if (pump := self._shims.pop(sandbox_id, None)) is not None:
            await pump.stop()
