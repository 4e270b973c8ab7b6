"""Running a command in a task with streams that a client reads and writes.

As for `noded.runtimes.exec`, the runtime starts the command detached and ends; the command is then
our child. So a client that vanishes leaves no helper behind: closing our ends hangs a terminal up,
or ends the command's input and breaks its output.

A terminal's master comes from the runtime over a console socket, a unix socket in the bundle that
exists only while the runtime starts.
"""

from __future__ import annotations

import array
import fcntl
import json
import os
import signal
import socket
import struct
import termios
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, Internal, NodedError, Unavailable
from noded.host.files import publish
from noded.host.processes import ProcessIdentity, children_of, kill_identity, reap
from noded.model.runtime import TaskRef
from noded.runtimes.command import CommandLine, clean_environment, umask_of
from noded.runtimes.exec_files import ExecFiles
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.hand_over import listen_in
from noded.runtimes.killing import abandoned_zombies, holders, stop_and_kill, wait_dead, wait_gone
from noded.runtimes.records import read_pid_file

_log = structlog.get_logger(__name__)

_START_SECONDS = 60.0
_KILL_SECONDS = 10.0
_CONSOLE_SECONDS = 5.0  # from the runtime's success to its terminal: it was sent before
_ERROR_LIMIT_BYTES = 16 * 1024
_LOST_CODE = 128 + signal.SIGKILL


class OciExecStream:
    """Implements `noded.model.runtime.ExecStream`; contracts are documented there."""

    def __init__(
        self,
        command: ProcessIdentity | None,
        pid: int,
        *,
        terminal: int,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> None:
        self._command = command
        self._pid = pid
        self._code: int | None = None
        self.terminal = terminal
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr

    def close_stdin(self) -> None:
        self.stdin = _closed(self.stdin)

    def close(self) -> None:
        self.close_stdin()
        self.terminal = _closed(self.terminal)
        self.stdout = _closed(self.stdout)
        self.stderr = _closed(self.stderr)

    async def resize(self, width: int, height: int) -> None:
        await trio.lowlevel.checkpoint()
        if self.terminal >= 0:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    async def wait(self) -> int:
        if self._code is None and self._command is not None:
            await wait_dead(self._command)
        else:
            await trio.lowlevel.checkpoint()
        if self._code is None:
            # What removes a container collects what it killed, perhaps before us.
            code = reap(self._pid)
            self._code = _LOST_CODE if code is None else code
        return self._code


@dataclass(frozen=True, slots=True)
class ExecStreams:
    """How to start commands with streams in tasks of one handler."""

    command: CommandLine
    runtime_name: str

    async def open(
        self, ref: TaskRef, process: Mapping[str, Any], *, terminal: bool, stdin: bool
    ) -> OciExecStream:
        """See `noded.model.runtime.Sandbox.exec_open`."""
        start = _Start(ExecFiles(ref.bundle), terminal)
        try:
            # Killing a runtime half-way leaves pieces; a start takes some hundredths of a second.
            with trio.CancelScope(shield=True):
                stream = await self._open(ref, process, start, stdin)
        except OSError as error:
            raise Unavailable(
                f"cannot start a command in container {ref.id}: {error.strerror or error}"
            ) from error
        finally:
            start.close()
        return stream

    async def _open(
        self, ref: TaskRef, process: Mapping[str, Any], start: _Start, stdin: bool
    ) -> OciExecStream:
        # For root only: the environment in it holds the workload's secrets.
        body = json.dumps({**process, "terminal": start.terminal}).encode()
        publish(start.files.process, body, 0o600, durable=False)
        if start.terminal:
            start.listen()
        ours = start.pipes(stdin)
        try:
            runtime = await self._spawn(ref, start, umask_of(process))
            with trio.move_on_after(_START_SECONDS):
                await runtime.wait()
            if runtime.returncode is None:
                await self._kill(start, runtime, ours)
                raise DeadlineExceeded(
                    f"{self.runtime_name} was killed: no command was started within {_START_SECONDS:g} s"
                )
            if runtime.returncode != 0:
                raise await self._failure(ref, process, start, runtime, ours)
            pid = read_pid_file(start.files.pid)
            if pid is None:
                raise Internal(f"{self.runtime_name} exec succeeded but wrote no pid to {start.files.pid}")
            command = ProcessIdentity.of(pid)
            master = await self._terminal(start, command)
        except BaseException:
            ours.close()
            raise
        if start.terminal:
            ours.close()  # they were for the runtime's own words
        return OciExecStream(
            command, pid, terminal=master, stdin=ours.stdin, stdout=ours.stdout, stderr=ours.stderr
        )

    async def _terminal(self, start: _Start, command: ProcessIdentity | None) -> int:
        if not start.terminal:
            return -1
        try:
            return await start.receive_terminal(self.runtime_name)
        except Internal:
            if command is not None:
                kill_identity(command)
                await wait_gone([command], timeout_seconds=_KILL_SECONDS)
            raise

    async def _spawn(self, ref: TaskRef, start: _Start, umask: int) -> trio.Process:
        options = ["--detach", "--process", str(start.files.process), "--pid-file", str(start.files.pid)]
        if start.terminal:
            options += ["--console-socket", start.files.console_name]
        argv = self.command.argv("exec", *options, ref.id, globals_=("--log", "/dev/null"))
        try:
            return await trio.lowlevel.open_process(
                argv,
                stdin=start.theirs[0],
                stdout=start.theirs[1],
                stderr=start.theirs[2],
                cwd=ref.bundle,  # so that the console socket's path is short
                env=clean_environment(self.command.environment),
                process_group=0,
                umask=umask,
            )
        except OSError as error:
            raise Unavailable(f"cannot run {argv[0]}: {error.strerror or error}") from error
        finally:
            start.close_theirs()

    async def _failure(
        self, ref: TaskRef, process: Mapping[str, Any], start: _Start, runtime: trio.Process, ours: _Ends
    ) -> NodedError:
        assert runtime.returncode is not None
        words = _read_now(ours.stderr) or _read_now(ours.stdout)
        error = runtime_error(
            f"{self.runtime_name} could not run {_name(process)} in container {ref.id}",
            words,
            ending(runtime.returncode),
        )
        try:
            await self._collect(runtime.pid, ours)
        except NodedError as second:
            error.add_note(str(second))
        return error

    async def _kill(self, start: _Start, runtime: trio.Process, ours: _Ends) -> None:
        """Kill a runtime that does not come to an end, and what it has started."""

        def strays() -> set[int]:
            pid = read_pid_file(start.files.pid)
            found = holders(children_of(os.getpid()), ours.outputs)
            return found if pid is None else found | {pid}

        def kill() -> list[ProcessIdentity]:
            root = ProcessIdentity.of(runtime.pid)
            return stop_and_kill([root] if root is not None else [], strays)

        killed = await trio.to_thread.run_sync(kill)
        with trio.move_on_after(_KILL_SECONDS):
            await runtime.wait()
        try:
            await wait_gone(killed, timeout_seconds=_KILL_SECONDS)
        except NodedError as error:
            _log.warning("exec_left_process", runtime=self.runtime_name, error=str(error))

    async def _collect(self, runtime_pid: int, ours: _Ends) -> None:
        """After a runtime that failed by itself: its helpers end by themselves, too."""
        pids = await trio.to_thread.run_sync(lambda: holders(children_of(os.getpid()), ours.outputs))
        dying = [identity for pid in pids if (identity := ProcessIdentity.of(pid)) is not None]
        await wait_gone(dying, timeout_seconds=_KILL_SECONDS)
        zombies = await trio.to_thread.run_sync(abandoned_zombies, self.command.program, runtime_pid)
        await wait_gone(zombies, timeout_seconds=_KILL_SECONDS)


@dataclass(slots=True)
class _Ends:
    """Our ends of a starting command's pipes."""

    stdin: int
    stdout: int
    stderr: int

    @property
    def outputs(self) -> list[int]:
        return [fd for fd in (self.stdout, self.stderr) if fd >= 0]

    def close(self) -> None:
        self.stdin, self.stdout, self.stderr = map(_closed, (self.stdin, self.stdout, self.stderr))


@dataclass(slots=True)
class _Start:
    """The start of one command: its files in the bundle and the runtime's ends of its streams."""

    files: ExecFiles
    terminal: bool
    theirs: list[int] = field(default_factory=list)
    _console: trio.socket.SocketType | None = None

    def pipes(self, stdin: bool) -> _Ends:
        """Make the pipes; with a terminal they are for the runtime's own words."""
        ends = _Ends(-1, -1, -1)
        try:
            if stdin and not self.terminal:
                theirs, ends.stdin = os.pipe()
                self.theirs.append(theirs)
            else:
                self.theirs.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            for name in ("stdout", "stderr"):
                ours, theirs = os.pipe()
                setattr(ends, name, ours)
                self.theirs.append(theirs)
            for fd in (ends.stdin, ends.stdout, ends.stderr):
                if fd >= 0:
                    os.set_blocking(fd, False)
        except BaseException:
            ends.close()
            raise
        return ends

    def listen(self) -> None:
        """Make the console socket."""
        self._console = listen_in(self.files.bundle, self.files.console_name)

    async def receive_terminal(self, runtime_name: str) -> int:
        """The master that the runtime has sent. Raises: Internal when there is none."""
        assert self._console is not None
        with trio.move_on_after(_CONSOLE_SECONDS):
            connection, _ = await self._console.accept()
            with connection:
                _, control, _, _ = await connection.recvmsg(
                    4096, socket.CMSG_SPACE(array.array("i").itemsize)
                )
            for level, kind, data in control:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    fds = array.array("i")
                    fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
                    os.set_inheritable(fds[0], False)
                    os.set_blocking(fds[0], False)
                    return fds[0]
        raise Internal(f"{runtime_name} exec succeeded but sent no terminal")

    def close_theirs(self) -> None:
        while self.theirs:
            os.close(self.theirs.pop())

    def close(self) -> None:
        self.close_theirs()
        if self._console is not None:
            self._console.close()
        self.files.remove()


def _read_now(fd: int) -> bytes:
    try:
        return os.read(fd, _ERROR_LIMIT_BYTES)
    except BlockingIOError:
        return b""


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


def _name(process: Mapping[str, Any]) -> str:
    args = process.get("args") or ("",)
    return repr(str(args[0]))
