"""Running short programs: input, output and end of each in one wait.

Theory of operation. What a program is to read is in its pipe before it starts, as far as it fits. An
epoll descriptor holds its pipes and its pidfd, and one task waits for that: a program costs a few turns of
the event loop, no thread and no task. It is started from the loop's own thread. Another would not help:
CPython holds its global lock from vfork(2) to execve(2) in any of them.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.host.processes import open_pidfd

log = structlog.get_logger(__name__)

_READ_BYTES = 65536

# How long a child that outlives its program may keep the program's pipes before they are dropped.
# All that the program itself wrote is in the pipes when it exits.
_DRAIN_SECONDS = 1.0

# A killed process is gone at once unless it hangs in the kernel; it is then left to init.
_KILL_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Ended:
    """What a program left. `returncode` is negative for a signal, as in subprocess."""

    returncode: int
    stdout: bytes
    stderr: bytes
    stdout_cut: bool


async def run_program(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    cwd: Path | None = None,
    new_session: bool = False,
    stdout_limit_bytes: int,
    stderr_limit_bytes: int,
    collect: Callable[[int], None] | None = None,
) -> Ended:
    """Run a program to its end, in a process group of its own.

    Args:
        new_session: the group is also a session.
        stdout_limit_bytes: what comes after them is read and dropped.
        stderr_limit_bytes: that many are kept of the end.
        collect: told the process group once the program has ended, however it did.

    Raises: OSError when it cannot be executed.
    Cancellation: the process group is killed; waits for its end, some seconds at most.
    """
    program = _Program(argv, environment, stdin, cwd, new_session, (stdout_limit_bytes, stderr_limit_bytes))
    try:
        await program.wait()
    finally:
        await program.end()
        if program.returncode is not None and collect is not None:
            collect(program.pid)
    assert program.returncode is not None
    out, err = program.outputs
    return Ended(program.returncode, bytes(out.data), bytes(err.data), out.cut)


class _Program:
    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        stdin: bytes,
        cwd: Path | None,
        new_session: bool,
        limits: tuple[int, int],
    ) -> None:
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for _ in limits:
                read, write = os.pipe()
                ours.append(read)
                theirs.append(write)
                os.set_blocking(read, False)
            self._program = argv[0]
            self._input, self._left = -1, memoryview(stdin)
            source = subprocess.DEVNULL
            if stdin:
                source, self._input = os.pipe()
                theirs.append(source)
                ours.append(self._input)
                os.set_blocking(self._input, False)
                self._feed()
            self._process = subprocess.Popen(
                list(argv),
                stdin=source,
                stdout=theirs[0],
                stderr=theirs[1],
                env=dict(environment),
                cwd=cwd,
                start_new_session=new_session,
                process_group=None if new_session else 0,
            )
        except BaseException:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self._open = set(ours)
        self.pid = self._process.pid
        self.outputs = _Kept(limits[0], head=True), _Kept(limits[1], head=False)
        self._sinks = dict(zip(ours, self.outputs, strict=False))
        if stdin and not self._left:
            self._close(self._input)
        self._pidfd = -1
        try:
            self._pidfd = open_pidfd(self.pid)
            self._epoll = select.epoll()
        except BaseException:  # no descriptor left: nobody could tell when it ends
            self._process.kill()
            self._process.wait()
            self._close_pipes()
            if self._pidfd >= 0:
                os.close(self._pidfd)
            raise
        for fd in (*self._open, self._pidfd):
            self._epoll.register(fd, select.EPOLLOUT if fd == self._input else select.EPOLLIN)

    @property
    def returncode(self) -> int | None:
        """None while it runs."""
        return self._process.returncode

    async def wait(self) -> None:
        """Return when the program has ended and all that it wrote was taken."""
        while self.returncode is None:
            await self._turn()
        with trio.move_on_after(_DRAIN_SECONDS):
            while self._open:
                await self._turn()

    async def _turn(self) -> None:
        await trio.lowlevel.wait_readable(self._epoll.fileno())
        for fd, _ in self._epoll.poll(0):
            if fd == self._pidfd:
                self._epoll.unregister(fd)
                self._process.poll()
                self._close(self._input)
            elif fd not in self._open:
                continue  # the input, closed above: a child that still reads it made room there
            elif fd == self._input:
                self._feed()
                if not self._left:
                    self._close(fd)
            else:
                self._read(fd)
        if self.returncode is not None:
            for fd in tuple(self._open):
                self._read(fd)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _READ_BYTES)
        except BlockingIOError:
            return
        if data:
            self._sinks[fd].add(data)
        else:
            self._close(fd)

    def _feed(self) -> None:
        try:
            self._left = self._left[os.write(self._input, self._left) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # a program may exit without having read its input
            self._left = self._left[:0]

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def _close_pipes(self) -> None:
        for fd in tuple(self._open):
            self._close(fd)

    async def end(self) -> None:
        """Kill the process group unless the program has ended by itself, and drop the pipes."""
        self._epoll.close()
        self._close_pipes()
        try:
            if self.returncode is None:
                # Not reaped yet, so the number still belongs to this group.
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, signal.SIGKILL)
                with trio.move_on_after(_KILL_SECONDS, shield=True):
                    await trio.lowlevel.wait_readable(self._pidfd)
                if self._process.poll() is None:
                    log.error(
                        "program cannot be killed",
                        pid=self.pid,
                        program=self._program,
                        cure="it hangs in the kernel; look at its stack",
                    )
        finally:
            os.close(self._pidfd)


class _Kept:
    """A bounded buffer: keeps the first bytes (`head`) or the last ones, drops the rest."""

    def __init__(self, limit: int, *, head: bool) -> None:
        self.data = bytearray()
        self.cut = False
        self._limit = limit
        self._head = head

    def add(self, chunk: bytes) -> None:
        self.data += chunk
        excess = len(self.data) - self._limit
        if excess > 0:
            self.cut = True
            if self._head:
                del self.data[self._limit :]
            else:
                del self.data[:excess]
