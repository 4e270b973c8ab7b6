"""Creating a task under conmon, the monitor that keeps its log and records its exit.

The monitor is started with `--sync`, so it is our child and its pid is known before it does
anything: the record with its identity is on disk before the start signal lets it act. A daemon that
dies on any line leaves either a recorded monitor or one that does nothing, and `delete` finds both.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog
import trio

from noded.errors import DeadlineExceeded, Internal, InvalidArgument, NodedError, NotFound, Unavailable
from noded.host.cgroups import Cgroups
from noded.host.namespaces import in_fresh_thread
from noded.host.processes import ProcessIdentity, set_oom_score_adj
from noded.model.runtime import TaskCreate
from noded.runtimes.command import CommandLine, spawn
from noded.runtimes.failures import plain_words, runtime_error
from noded.runtimes.killing import stop_and_kill, wait_gone
from noded.runtimes.log_size import LEAST_LOG_BYTES
from noded.runtimes.records import PID_FILE, TaskRecord, write_record
from noded.tracing.spans import span

_log = structlog.get_logger(__name__)

# conmon's buffer for the runtime's error text is 8 KiB, JSON escapes make it longer.
_SYNC_LIMIT_BYTES = 1 << 20
# How long a failed monitor may take to end by itself, and a killed one to disappear.
_END_SECONDS = 5.0
# sockaddr_un; conmon binds its console socket below TMPDIR as conmon-term.XXXXXX.
_SOCKET_PATH_BYTES = 107
_CONSOLE_NAME_BYTES = len("/conmon-term.XXXXXX")


@dataclass(frozen=True, slots=True)
class Conmon:
    """How to start a monitor for one handler's tasks."""

    program: str
    command: CommandLine
    exits: Path
    cgroups: Cgroups
    systemd: bool
    no_pivot: bool
    runtime_name: str
    log_max_bytes: int = 0  # 0 = no limit
    stand_in: str = ""  # what to run in place of the runtime for containers that join a sandbox

    def argv(self, create: TaskCreate) -> list[str]:
        """conmon's command line (conmon(8))."""
        ref = create.ref
        joins = ref.id != ref.sandbox_id
        argv = [
            self.program,
            "--sync",
            "--cid", ref.id,
            "--cuuid", ref.id,
            "--name", ref.id,
            "--bundle", str(ref.bundle),
            "--runtime", self.stand_in if self.stand_in and joins else self.command.monitored,
            "--container-pidfile", str(ref.bundle / PID_FILE),
            "--exit-dir", str(self.exits),
            "--log-path", f"k8s-file:{create.log_path}" if create.log_path else "none",
            "--log-level", "warning",
            "--full-attach",
            "--no-sync-log",
        ]  # fmt: skip
        argv += [word for arg in self.command.global_args for word in ("--runtime-arg", arg)]
        if self.log_max_bytes and create.log_path:
            argv += ["--log-size-max", str(max(self.log_max_bytes, LEAST_LOG_BYTES))]
        if self.systemd:
            argv.append("--systemd-cgroup")
        if self.no_pivot:
            argv.append("--no-pivot")
        if create.restore_from is not None:
            argv += ["--restore", str(create.restore_from), "--runtime-opt", "--file-locks"]
        if create.terminal:
            argv.append("--terminal")
        elif create.stdin:
            argv.append("--stdin")
            if not create.stdin_once:
                argv.append("--leave-stdin-open")
        return argv

    async def create(self, create: TaskCreate) -> int:
        """Start a monitor, let it create the task, and return the pid of init.

        Raises: see `noded.model.runtime.Sandbox.create`.
        Cancellation: the monitor and the runtime below it are killed; `delete` removes the rest.
        """
        if ":" in create.log_path:
            raise InvalidArgument(
                f"log_path must not contain a colon, conmon cuts it there: {create.log_path}"
            )
        stage = "starting the monitor"
        with trio.move_on_after(create.deadline_seconds) as scope, _pipes() as pipes:
            begun: list[TaskRecord] = []
            try:
                # Not abandoned on cancel, so the pid is never lost.
                await trio.to_thread.run_sync(self._begin, create, pipes, begun)
                (record,) = begun
                stage = f"waiting for {self.runtime_name} create"
                with span(f"{self.runtime_name} create"):
                    reply = await pipes.read_reply()
                    pid = self._pid(create, reply, pipes)
                if create.oom_score_adj is not None:
                    self._protect(record.monitor, create.oom_score_adj)
                init = ProcessIdentity.of(pid)
                if init is not None:
                    write_record(create.ref.bundle, replace(record, init=init))
                return pid
            except BaseException as error:
                # A monitor that reported a failure ends by itself; every other one is killed.
                for one in begun:
                    await self._end(one.monitor, error)
                raise
        assert scope.cancelled_caught
        raise DeadlineExceeded(
            f"creating container {create.ref.id} took longer than {create.deadline_seconds:g} s: "
            f"stopped while {stage}"
        )

    def _begin(self, create: TaskCreate, pipes: _Pipes, begun: list[TaskRecord]) -> None:
        """Start the monitor, record it, put it into its cgroup, and let it act. Blocks some milliseconds."""
        with span("start conmon"):
            inside, monitor = in_fresh_thread(partial(self._spawn_inside, create, pipes), "noded-conmon")
        record = TaskRecord(log_path=create.log_path, monitor=monitor)
        begun.append(record)
        write_record(create.ref.bundle, record)
        if create.monitor_cgroup and not inside:
            try:
                with span("move conmon to its cgroup"):
                    self._move(create.monitor_cgroup, monitor.pid)
            except NotFound as error:  # it ended at once, and said why: no log directory
                raise self._silent(create, error, pipes) from error
        pipes.let_start()

    def _spawn_inside(self, create: TaskCreate, pipes: _Pipes) -> tuple[bool, ProcessIdentity]:
        """Start the monitor in its cgroup if this thread can go there; tell whether it is there."""
        inside = bool(create.monitor_cgroup) and self.cgroups.enter(create.monitor_cgroup)
        return inside, self._spawn(create, pipes)

    def _spawn(self, create: TaskCreate, pipes: _Pipes) -> ProcessIdentity:
        environment = {**self.command.environment, **create.environment, **pipes.environment}
        if len(os.fsencode(create.ref.bundle)) + _CONSOLE_NAME_BYTES <= _SOCKET_PATH_BYTES:
            environment["TMPDIR"] = str(create.ref.bundle)
        try:
            pid = spawn(
                self.argv(create),
                environment=environment,
                cwd=create.ref.bundle,
                stderr=pipes.stderr_write,
                pass_fds=pipes.inherited,
            )
        except OSError as error:
            raise Unavailable(
                f"cannot run {self.program} in {create.ref.bundle}: {error.strerror}"
            ) from error
        finally:
            pipes.close_inherited()
        identity = ProcessIdentity.of(pid)
        if identity is None:
            raise Internal(
                f"conmon (pid {pid}) is gone before it was told to start: something else reaped it"
            )
        return identity

    def _move(self, place: str, pid: int) -> None:
        try:
            self.cgroups.attach(place, pid)
        except NodedError:  # somebody else's broom, or the process is gone, which the second try says, too
            self.cgroups.create(place)
            self.cgroups.attach(place, pid)

    def _pid(self, create: TaskCreate, reply: bytes, pipes: _Pipes) -> int:
        verb = "create" if create.restore_from is None else "restore"
        action = f"{self.runtime_name} could not {verb} container {create.ref.id}"
        pid, message = parse_reply(reply)
        if pid > 0:
            return pid
        said = "; ".join(word for word in (plain_words(message), plain_words(pipes.read_stderr())) if word)
        raise runtime_error(action, said.encode(), "the monitor ended without a word")

    def _silent(self, create: TaskCreate, error: NotFound, pipes: _Pipes) -> NodedError:
        """What a monitor's end before its start means."""
        action = f"the monitor of container {create.ref.id} could not start"
        return runtime_error(action, plain_words(pipes.read_stderr()).encode(), str(error))

    def _protect(self, monitor: ProcessIdentity, value: int) -> None:
        if not set_oom_score_adj(monitor.pid, value):
            _log.debug("monitor_oom_score_adj_not_set", pid=monitor.pid, value=value)

    async def _end(self, monitor: ProcessIdentity, error: BaseException) -> None:
        with trio.move_on_after(3 * _END_SECONDS, shield=True):
            try:
                if isinstance(error, NodedError):
                    try:
                        await wait_gone([monitor], timeout_seconds=_END_SECONDS)
                        return
                    except Unavailable:
                        pass
                killed = await trio.to_thread.run_sync(stop_and_kill, [monitor], set)
                await wait_gone([monitor, *killed], timeout_seconds=_END_SECONDS)
            except NodedError as second:
                error.add_note(str(second))
            return
        error.add_note(f"the monitor (pid {monitor.pid}) did not end in time")


def parse_reply(line: bytes) -> tuple[int, bytes]:
    """Return (pid, message) from conmon's line on the sync pipe; (-1, b"") when there is none."""
    try:
        value = json.loads(line)
        pid = value["data"] if "data" in value else value["pid"]
        return int(pid), str(value.get("message") or "").encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        return -1, line


class _Pipes:
    """The three channels to a starting conmon: sync (socket pair), start (eventfd), stderr (pipe).

    conmon takes the end of a start pipe for the start byte, so a monitor whose daemon dies would act.
    An eventfd has no end. The monitor closes what it was told of before it runs the runtime: anything
    else would go on to the container's processes, and runsc fails when it inherits a number that it
    wants for itself (256 to 258).
    """

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._sync = trio.socket.from_stdlib_socket(ours)
        self._sync_theirs = theirs
        self._start = os.eventfd(0, os.EFD_CLOEXEC)
        self._stderr_read, self.stderr_write = os.pipe()
        os.set_blocking(self._stderr_read, False)

    @property
    def inherited(self) -> tuple[int, int]:
        """What the monitor gets beside its stderr."""
        return self._sync_theirs.fileno(), self._start

    @property
    def environment(self) -> dict[str, str]:
        return {"_OCI_SYNCPIPE": str(self._sync_theirs.fileno()), "_OCI_STARTPIPE": str(self._start)}

    def close_inherited(self) -> None:
        self._sync_theirs.close()
        self.stderr_write = _closed(self.stderr_write)

    def let_start(self) -> None:
        """Let conmon act. It may be dead already: the reply tells."""
        os.eventfd_write(self._start, 1)
        self._start = _closed(self._start)

    async def read_reply(self) -> bytes:
        """Return the first line, or what came before the end of the stream."""
        reply = b""
        while not reply.endswith(b"\n") and len(reply) < _SYNC_LIMIT_BYTES:
            try:
                data = await self._sync.recv(65536)
            except ConnectionResetError:
                break
            if not data:
                break
            reply += data
        return reply

    def read_stderr(self) -> bytes:
        try:
            return os.read(self._stderr_read, 65536)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        self.close_inherited()
        self._sync.close()
        self._start = _closed(self._start)
        self._stderr_read = _closed(self._stderr_read)


def _closed(fd: int) -> int:
    if fd >= 0:
        os.close(fd)
    return -1


@contextmanager
def _pipes() -> Iterator[_Pipes]:
    pipes = _Pipes()
    try:
        yield pipes
    finally:
        pipes.close()
