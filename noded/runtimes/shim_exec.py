"""Commands in a running task, through its shim."""

from __future__ import annotations

import json
import os
import secrets
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any as Json
from typing import Final

import structlog
import trio

from noded.errors import DeadlineExceeded, NodedError, NotFound
from noded.host.processes import ProcessIdentity
from noded.model.runtime import ExecResult, TaskRef
from noded.runtimes.killing import session_members, session_of, stop_and_kill
from noded.runtimes.records import EXEC_PREFIX
from noded.runtimes.shim_fifos import FifoReader, await_writer, make_fifo
from noded.runtimes.shim_pump import Pump
from noded.runtimes.shim_service import TaskService
from noded.wire import ttrpc_task as task

_log = structlog.get_logger(__name__)

_START_SECONDS: Final = 2.0  # for a start to come to its end although it is no longer wanted
_END_SECONDS: Final = 10.0  # for an ended command to be removed by the shim
_ABORT_SECONDS: Final = 5.0  # for a killed one altogether: its caller waits
_REST_SECONDS: Final = 3.0  # from a command's removal to the end of its output
_CLIENT_SECONDS: Final = 60.0  # for a client to read the rest of what an ended command wrote
_CTRL_D: Final = b"\4"
_LOST_CODE: Final = 128 + signal.SIGKILL


@dataclass(frozen=True, slots=True)
class ShimExecs:
    """How to run commands in the tasks of one pod.

    Args:
        members: pids of a task's cgroup, for finding what a command left behind; None where the
            processes are not the host's.
    """

    service: TaskService
    members: Callable[[TaskRef], set[int]] | None

    async def run(
        self, ref: TaskRef, process: Mapping[str, Json], *, timeout_seconds: float | None, limit_bytes: int
    ) -> ExecResult:
        """See `noded.model.runtime.Sandbox.exec_sync`.

        Output beyond `limit_bytes` per stream is read and dropped. Background children that hold
        the output open delay the end by the two seconds that shims wait for them.
        """
        command = _Command(self.service, ref, process)
        try:
            with trio.move_on_after(float("inf") if timeout_seconds is None else timeout_seconds) as scope:
                try:
                    return await self._run(command, limit_bytes)
                except BaseException as error:
                    await self._abort(command, error)
                    raise
        finally:
            command.remove_files()
        assert scope.cancelled_caught
        words = " ".join(str(word) for word in process.get("args") or ())
        raise DeadlineExceeded(
            f"command {words!r} did not finish within {timeout_seconds:g} s and was killed"
        )

    async def _run(self, command: _Command, limit_bytes: int) -> ExecResult:
        await command.add(terminal=False, stdin=False)
        captures = [_Capture(command.fifo(name), limit_bytes) for name in ("stdout", "stderr")]
        failure: NodedError | None = None
        code = 0
        try:
            async with trio.open_nursery() as nursery:
                for capture in captures:
                    nursery.start_soon(capture.collect)
                try:
                    await command.start()
                    code = await command.wait()
                    # Before it answers, the shim hands over what is left of the output.
                    await command.delete()
                except NodedError as error:  # raised below: a nursery would wrap it
                    failure = error
                for capture in captures:
                    capture.reader.expect_end()
                nursery.cancel_scope.deadline = trio.current_time() + (
                    _REST_SECONDS if failure is None else 0
                )
            if failure is not None:
                raise failure
            return ExecResult(code, *(bytes(capture.data) for capture in captures))
        finally:
            for capture in captures:
                capture.reader.close()

    async def _abort(self, command: _Command, error: BaseException) -> None:
        """Kill the command with all that it started and that can be told; have the shim forget it."""
        if not command.added:
            return
        with trio.move_on_after(_ABORT_SECONDS, shield=True) as scope:
            try:
                if command.code is None:
                    await self._kill(command)
                await command.delete()
            except NotFound:
                pass
            except NodedError as second:
                error.add_note(str(second))
                _log.warning("command_not_killed", container=command.ref.id, reason=str(second))
        if scope.cancelled_caught:
            _log.warning("command_not_killed", container=command.ref.id, reason="the shim does not react")

    async def _kill(self, command: _Command) -> None:
        if command.pid == 0:
            # The start was cancelled; the shim knows how far it came.
            command.pid = (await self.service.state(command.ref.id, command.exec_id)).pid
        if command.pid == 0:
            return
        if self.members is not None:
            await trio.to_thread.run_sync(self._kill_tree, command)
        else:
            with suppress(NotFound):
                await self.service.kill(
                    command.ref.id, signal.SIGKILL, exec_id=command.exec_id, everything=True
                )
        await self.service.wait(command.ref.id, command.exec_id, timeout_seconds=_END_SECONDS)

    def _kill_tree(self, command: _Command) -> None:
        assert self.members is not None
        leader = ProcessIdentity.of(command.pid)
        session = session_of(command.pid)
        members = self.members

        def strays() -> set[int]:
            return set() if session is None else session_members(members(command.ref), session)

        if leader is not None and command.pid in members(command.ref):
            stop_and_kill([leader], strays)

    async def open(
        self, ref: TaskRef, process: Mapping[str, Json], *, terminal: bool, stdin: bool
    ) -> ShimExecStream:
        """See `noded.model.runtime.Sandbox.exec_open`."""
        command = _Command(self.service, ref, process)
        readers: list[FifoReader] = []
        try:
            # A start that is given up half-way leaves pieces; it takes some hundredths of a second.
            with trio.CancelScope(shield=True):
                await command.add(terminal=terminal, stdin=stdin or terminal)
                names = ("stdout",) if terminal else ("stdout", "stderr")
                readers += [FifoReader(command.fifo(name)) for name in names]
                try:
                    await command.start()
                    writer = await await_writer(command.fifo("stdin")) if stdin or terminal else -1
                except NodedError as error:
                    await self._abort(command, error)
                    raise
        except BaseException:
            for reader in readers:
                reader.close()
            command.remove_files()
            raise
        outputs = [reader.detach() for reader in readers]
        return ShimExecStream(command, terminal, writer, outputs[0], outputs[1] if len(outputs) > 1 else -1)


class _Command:
    """One command: its id at the shim, its fifos, and how far it came."""

    def __init__(self, service: TaskService, ref: TaskRef, process: Mapping[str, Json]) -> None:
        self.service = service
        self.ref = ref
        self.exec_id = EXEC_PREFIX + secrets.token_hex(8)
        self.added = False
        self.pid = 0
        self.code: int | None = None
        self.failure: NodedError | None = None
        self._process = process

    def fifo(self, stream: str) -> Path:
        return self.ref.bundle / f"{self.exec_id}.{stream}"

    async def add(self, *, terminal: bool, stdin: bool) -> None:
        """Make the fifos and tell the shim of the command."""
        names = ["stdout"] + (["stdin"] if stdin else []) + ([] if terminal else ["stderr"])
        for name in names:
            make_fifo(self.fifo(name))
        paths = {name: str(self.fifo(name)) for name in names}
        body = json.dumps({**self._process, "terminal": terminal}).encode()
        self.added = True
        await self.service.exec(
            task.ExecProcessRequest(
                id=self.ref.id,
                exec_id=self.exec_id,
                terminal=terminal,
                stdin=paths.get("stdin", ""),
                stdout=paths["stdout"],
                stderr=paths.get("stderr", ""),
                spec=task.Any(task.PROCESS_URL, body),
            )
        )

    async def start(self) -> None:
        """Run the command. Cancellation: waits two seconds for the shim to be done.

        A start that is cut leaves a process of the OCI runtime in the container that nobody knows.
        """
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as nursery:

                async def unshield() -> None:
                    await trio.sleep(_START_SECONDS)
                    scope.shield = False

                nursery.start_soon(unshield)
                try:
                    self.pid = await self.service.start(self.ref.id, self.exec_id)
                except NodedError as error:  # raised below: a nursery would wrap it
                    self.failure = error
                nursery.cancel_scope.cancel()
        if self.failure is not None:
            raise self.failure

    async def wait(self) -> int:
        self.code = (await self.service.wait(self.ref.id, self.exec_id)).exit_status
        return self.code

    async def delete(self) -> None:
        await self.service.delete(self.ref.id, self.exec_id, timeout_seconds=_END_SECONDS)

    def remove_files(self) -> None:
        for path in self.ref.bundle.glob(f"{self.exec_id}*"):
            path.unlink(missing_ok=True)


class _Capture:
    """One output with its first `limit_bytes`."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        self.reader = FifoReader(path)
        self.data = bytearray()
        self._limit_bytes = limit_bytes

    async def collect(self) -> None:
        while piece := await self.reader.read():
            room = self._limit_bytes - len(self.data)
            if room > 0:
                self.data += piece[:room]


class ShimExecStream:
    """Implements `noded.model.runtime.ExecStream`; contracts are documented there.

    The master of a terminal stays with the shim; input and output are fifos then, too.
    """

    terminal: int = -1

    def __init__(self, command: _Command, has_terminal: bool, stdin: int, stdout: int, stderr: int) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self._command = command
        self._has_terminal = has_terminal
        self._code = _LOST_CODE
        self._ended = trio.Event()
        self._closed = trio.Event()
        self._input_ended = trio.Event()
        Pump(f"command in {command.ref.id}", self._see_to_the_end, self._forget)

    def close_stdin(self) -> None:
        if self.stdin >= 0:
            if self._has_terminal:
                # A terminal has no half close: what its line discipline takes for an end must do.
                with suppress(OSError):
                    os.write(self.stdin, _CTRL_D)
            else:
                self.stdin = _closed(self.stdin)
            self._input_ended.set()

    def close(self) -> None:
        self.stdin, self.stdout, self.stderr = map(_closed, (self.stdin, self.stdout, self.stderr))
        self._closed.set()

    async def resize(self, width: int, height: int) -> None:
        service, ref = self._command.service, self._command.ref
        await service.resize(ref.id, width, height, exec_id=self._command.exec_id)

    async def wait(self) -> int:
        await self._ended.wait()
        return self._code

    async def _see_to_the_end(self) -> None:
        command = self._command
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._on_end_of_input)
                nursery.start_soon(self._on_close)
                try:
                    self._code = await command.wait()
                except NodedError as error:
                    _log.info("command_lost", container=command.ref.id, reason=str(error))
                self._ended.set()
                nursery.cancel_scope.cancel()
            # Deleting ends the output, so first the client reads the rest of it.
            with trio.move_on_after(_CLIENT_SECONDS):
                await self._closed.wait()
            await command.delete()
        except NodedError as error:
            _log.debug("command_not_deleted", container=command.ref.id, reason=str(error))

    async def _on_end_of_input(self) -> None:
        await self._input_ended.wait()
        if not self._has_terminal:
            with suppress(NodedError):  # it may have ended just now
                await self._command.service.close_stdin(self._command.ref.id, self._command.exec_id)

    async def _on_close(self) -> None:
        """The client has gone: end the input, hang a terminal up.

        The shim itself holds the output open: nothing breaks when we do not read. So what still
        comes is dropped, and the command may finish what it does.
        """
        await self._closed.wait()
        with suppress(NodedError):
            await self._command.service.close_stdin(self._command.ref.id, self._command.exec_id)
        if self._has_terminal:
            with suppress(NodedError):
                await self._command.service.kill(
                    self._command.ref.id, signal.SIGHUP, exec_id=self._command.exec_id
                )
        async with trio.open_nursery() as nursery:
            for name in ("stdout",) if self._has_terminal else ("stdout", "stderr"):
                nursery.start_soon(_drop_output, self._command.fifo(name))

    def _forget(self) -> None:
        self._ended.set()
        self._command.remove_files()


async def _drop_output(path: Path) -> None:
    reader = FifoReader(path)
    try:
        while await reader.read():
            pass
    finally:
        reader.close()


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1
