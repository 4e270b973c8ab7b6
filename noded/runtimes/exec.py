"""Running a command in a task and collecting its output, without a monitor.

The runtime starts the command detached, with our pipes as its output, and ends. The command is
then our child (the daemon is a subreaper): its pidfd tells its end and its exit status, and a
runtime that fails cannot be mistaken for a command that fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, Internal, NodedError, Unavailable
from noded.host.files import publish
from noded.host.processes import ProcessIdentity, children_of, reap
from noded.model.runtime import ExecResult, TaskRef
from noded.runtimes.command import CommandLine, clean_environment, umask_of
from noded.runtimes.exec_files import ExecFiles
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.killing import (
    abandoned_zombies,
    holders,
    session_members,
    session_of,
    stop_and_kill,
    wait_dead,
    wait_gone,
)
from noded.runtimes.records import read_pid_file

_log = structlog.get_logger(__name__)

_READ_BYTES = 65536
_KILL_SECONDS = 10.0
_START_SECONDS = 2.0  # for a runtime to come to an end with a start that is no longer wanted


@dataclass(frozen=True, slots=True)
class Execs:
    """How to run commands in tasks of one handler.

    Args:
        members: pids of a task's cgroup, for finding what a command left behind.
        internal_pid_file: see `OciQuirks`.
    """

    command: CommandLine
    runtime_name: str
    members: Callable[[TaskRef], set[int]]
    internal_pid_file: bool

    async def run(
        self, ref: TaskRef, process: Mapping[str, Any], *, timeout_seconds: float | None, limit_bytes: int
    ) -> ExecResult:
        """See `noded.model.runtime.Sandbox.exec_sync`.

        Output beyond `limit_bytes` per stream is read and dropped. The call ends when the command
        ends, also if background children hold its output open; they live on.

        Cancellation: every process of the command is killed.
        """
        running = _Running(ExecFiles(ref.bundle), limit_bytes)
        with trio.move_on_after(float("inf") if timeout_seconds is None else timeout_seconds) as scope:
            try:
                return await self._run(ref, process, running)
            except BaseException as error:
                await self._abort(ref, running, error)
                raise
            finally:
                running.close()
        assert scope.cancelled_caught
        words = " ".join(str(word) for word in process.get("args") or ())
        raise DeadlineExceeded(
            f"command {words!r} did not finish within {timeout_seconds:g} s and was killed"
        )

    async def _run(self, ref: TaskRef, process: Mapping[str, Any], running: _Running) -> ExecResult:
        # For root only: the environment in it holds the workload's secrets.
        publish(
            running.files.process, json.dumps({**process, "terminal": False}).encode(), 0o600, durable=False
        )
        runtime = await self._spawn(ref, running, umask_of(process))
        failure: NodedError | None = None
        code = 0
        async with trio.open_nursery() as nursery:
            for stream in (running.stdout, running.stderr):
                nursery.start_soon(stream.collect)
            returncode = await runtime.wait()
            running.runtime = None
            if returncode == 0:
                try:
                    code = await self._wait_command(running)
                except NodedError as error:  # raised below: a nursery would wrap it
                    failure = error
            for stream in (running.stdout, running.stderr):
                stream.drain()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if returncode != 0:
            await self._leave_nothing(running)
            raise runtime_error(
                f"{self.runtime_name} could not run {_words(process)} in container {ref.id}",
                running.stderr.data() or running.stdout.data(),
                ending(returncode),
            )
        return ExecResult(code, running.stdout.data(), running.stderr.data())

    async def _spawn(self, ref: TaskRef, running: _Running, umask: int) -> trio.Process:
        options = ["--detach", "--process", str(running.files.process), "--pid-file", str(running.files.pid)]
        if self.internal_pid_file:
            options += ["--internal-pid-file", str(running.files.internal_pid)]
        # With a log file runtimes keep warnings off standard error, which is the command's own;
        # a fatal error they still write there, in plain words.
        argv = self.command.argv("exec", *options, ref.id, globals_=("--log", "/dev/null"))
        try:
            runtime = await trio.lowlevel.open_process(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=running.stdout.write_fd,
                stderr=running.stderr.write_fd,
                env=clean_environment(self.command.environment),
                process_group=0,
                umask=umask,
            )
        except OSError as error:
            raise Unavailable(f"cannot run {argv[0]}: {error.strerror or error}") from error
        running.runtime, running.runtime_pid = runtime, runtime.pid
        running.stdout.close_write()
        running.stderr.close_write()
        return runtime

    async def _wait_command(self, running: _Running) -> int:
        pid = read_pid_file(running.files.pid)
        if pid is None:
            raise Internal(f"{self.runtime_name} exec succeeded but wrote no pid to {running.files.pid}")
        command = ProcessIdentity.of(pid)
        running.session = session_of(pid)
        if command is not None:
            await wait_dead(command)
        code = reap(pid)
        if code is None:
            # Only the removal of its container collects a command that is not its own.
            raise FailedPrecondition(f"the command (pid {pid}) was killed with its container")
        running.reaped = True
        return code

    async def _leave_nothing(self, running: _Running) -> None:
        """After a runtime that failed by itself: its helpers end by themselves, too."""
        pids = await trio.to_thread.run_sync(lambda: holders(children_of(os.getpid()), running.pipes))
        dying = [identity for pid in pids if (identity := ProcessIdentity.of(pid)) is not None]
        try:
            await self._collect(running, dying)
        except Unavailable as error:
            _log.warning("exec_left_process", runtime=self.runtime_name, error=str(error))

    async def _collect(self, running: _Running, dying: list[ProcessIdentity]) -> None:
        """Wait for processes that are about to end, and reap what the runtime did not wait for.

        Raises: Unavailable naming what does not end.
        """
        await wait_gone(dying, timeout_seconds=_KILL_SECONDS)
        zombies = await trio.to_thread.run_sync(abandoned_zombies, self.command.program, running.runtime_pid)
        await wait_gone(zombies, timeout_seconds=_KILL_SECONDS)

    async def _abort(self, ref: TaskRef, running: _Running, error: BaseException) -> None:
        """Kill the runtime, the command, and all that the command started and that can be told.

        Background children whose parent is gone are found by the session in which runtimes start a
        command, and by the pipes that they inherited.
        """
        if not running.runtime_pid or isinstance(error, NodedError):
            return  # nothing was started, or it has ended by itself
        with trio.move_on_after(_START_SECONDS + 3 * _KILL_SECONDS, shield=True):
            try:
                if running.runtime is not None:
                    # In the middle of a start it cannot be told which processes are the command's.
                    with trio.move_on_after(_START_SECONDS):
                        await running.runtime.wait()
                        running.runtime = None
                if self.internal_pid_file:
                    await self._kill_inside(ref, running)
                killed = await trio.to_thread.run_sync(self._kill, ref, running)
                if running.runtime is not None:
                    await running.runtime.wait()
                await self._collect(running, killed)
            except NodedError as second:
                error.add_note(str(second))
            return
        error.add_note(f"processes of the command in container {ref.id} did not end in time")

    def _kill(self, ref: TaskRef, running: _Running) -> list[ProcessIdentity]:
        runtime = running.runtime
        roots = [] if runtime is None else [ProcessIdentity.of(runtime.pid)]

        def command() -> set[int]:
            """Nobody but us reaps the command, so the pid in the file is its own, dead or alive."""
            pid = read_pid_file(running.files.pid)
            return set() if pid is None or running.reaped else {pid}

        def strays() -> set[int]:
            found = command()
            for pid in found if running.session is None else ():
                running.session = session_of(pid)
            members = self.members(ref)
            found |= holders(members | children_of(os.getpid()), running.pipes)
            return found if running.session is None else found | session_members(members, running.session)

        killed = stop_and_kill([root for root in roots if root is not None], strays)
        # The runtime may have let the command go just while it was looked for; now it is dead.
        killed += stop_and_kill([], strays)
        zombies = [identity for pid in command() if (identity := ProcessIdentity.of(pid)) is not None]
        return killed + zombies

    async def _kill_inside(self, ref: TaskRef, running: _Running) -> None:
        pid = read_pid_file(running.files.internal_pid)
        if pid is not None:
            await self.command.run("kill", "--pid", str(pid), ref.id, "KILL", timeout_seconds=_KILL_SECONDS)


@dataclass(slots=True)
class _Running:
    """One exec: its files in the bundle, its pipes, and which of its processes are alive."""

    files: ExecFiles
    limit_bytes: int
    runtime: trio.Process | None = None
    runtime_pid: int = 0
    reaped: bool = False
    session: int | None = None
    stdout: _Capture = field(init=False)
    stderr: _Capture = field(init=False)

    def __post_init__(self) -> None:
        self.stdout = _Capture(self.limit_bytes)
        self.stderr = _Capture(self.limit_bytes)

    @property
    def pipes(self) -> tuple[int, int]:
        return self.stdout.read_fd, self.stderr.read_fd

    def close(self) -> None:
        self.stdout.close()
        self.stderr.close()
        self.files.remove()


class _Capture:
    """The reading end of one output pipe, with the first `limit_bytes` of what came through it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._data = bytearray()
        self.read_fd, self.write_fd = os.pipe()
        self._stream: trio.lowlevel.FdStream | None = trio.lowlevel.FdStream(self.read_fd)

    async def collect(self) -> None:
        """Read until the end of the stream. Cancellation: safe, nothing read is lost."""
        assert self._stream is not None
        while data := await self._stream.receive_some(_READ_BYTES):
            self._keep(data)

    def drain(self) -> None:
        """Take what the command left in the pipe when it ended.

        At most the pipe's capacity: more can only come from children that still write.
        """
        left = fcntl.fcntl(self.read_fd, fcntl.F_GETPIPE_SZ)
        while left > 0:
            try:
                data = os.read(self.read_fd, min(left, _READ_BYTES))
            except BlockingIOError:
                return
            if not data:
                return
            self._keep(data)
            left -= len(data)

    def _keep(self, data: bytes) -> None:
        room = self._limit_bytes - len(self._data)
        if room > 0:
            self._data += data[:room]

    def data(self) -> bytes:
        return bytes(self._data)

    def close_write(self) -> None:
        if self.write_fd >= 0:
            os.close(self.write_fd)
            self.write_fd = -1

    def close(self) -> None:
        self.close_write()
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _words(process: Mapping[str, Any]) -> str:
    args = process.get("args") or ("",)
    return repr(str(args[0]))
