"""The tasks of one pod sandbox, run by its shim."""

from __future__ import annotations

import json
import signal as signals
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable, Unimplemented
from noded.host.processes import ProcessIdentity
from noded.model.runtime import (
    ExecResult,
    ExecStream,
    Exit,
    SandboxRef,
    TaskCreate,
    TaskRef,
    TaskState,
    TaskUsage,
)
from noded.runtimes.records import CONFIG_FILE, TaskRecord, read_record, write_record
from noded.runtimes.shim_exec import ShimExecs
from noded.runtimes.shim_exits import ShimExits
from noded.runtimes.shim_fifos import make_fifo
from noded.runtimes.shim_parts import ShimParts
from noded.runtimes.shim_record import (
    STDERR_FIFO,
    STDIN_FIFO,
    STDIN_ONCE_FILE,
    STDOUT_FIFO,
    ShimRecord,
    read_shim,
)
from noded.runtimes.shim_service import TaskService
from noded.runtimes.shim_start import ShimStart, live_shim
from noded.runtimes.shim_teardown import ShimTeardown
from noded.runtimes.signalling import signal_init, signal_members
from noded.tracing.spans import span
from noded.wire.ttrpc_task import CreateTaskRequest, ProcessStatus

_STATES = {
    ProcessStatus.CREATED: TaskState.CREATED,
    ProcessStatus.RUNNING: TaskState.RUNNING,
    ProcessStatus.STOPPED: TaskState.STOPPED,
    ProcessStatus.PAUSED: TaskState.PAUSED,
    ProcessStatus.PAUSING: TaskState.PAUSED,
}


class ShimSandbox:
    """Implements `noded.model.runtime.Sandbox`; contracts are documented there."""

    def __init__(self, parts: ShimParts, ref: SandboxRef) -> None:
        self._parts = parts
        self._ref = ref
        self._start = ShimStart(parts, ref)
        self._exits = ShimExits(parts, ref)
        self._teardown = ShimTeardown(parts, ref)

    async def infra_pid(self) -> int | None:
        await trio.lowlevel.checkpoint()
        record = read_record(self._ref.bundle)
        init = record.init if record is not None else None
        return init.pid if init is not None and init.alive() else None

    def _service(self) -> TaskService:
        """Raises: Unavailable when the pod's shim is gone."""
        shim = live_shim(self._ref)
        if shim is None:
            raise Unavailable(f"the shim of pod sandbox {self._ref.id[:12]} is gone: run a new sandbox")
        return self._parts.service(self._ref.id, shim)

    async def create(self, task: TaskCreate) -> int:
        seconds = task.deadline_seconds
        with trio.move_on_after(seconds) as scope:
            shim = await self._shim_for(task)
            await trio.to_thread.run_sync(_prepare, task, shim)
            await self._parts.pumps.log(task.ref.id, task.ref.bundle, task.log_path)
            return await self._create(task, shim)
        assert scope.cancelled_caught
        raise DeadlineExceeded(f"creating container {task.ref.id} took longer than {seconds:g} s")

    async def _shim_for(self, task: TaskCreate) -> ShimRecord:
        """Return the pod's shim; a pod without sandbox container gets a new one when the old one died."""
        if (shim := live_shim(self._ref)) is not None:
            return shim
        if read_record(self._ref.bundle) is not None:
            raise FailedPrecondition(
                f"the shim of pod sandbox {self._ref.id[:12]} died, and its sandbox container with it: "
                "run a new sandbox"
            )
        async with self._parts.lock(self._ref.id):
            if (shim := live_shim(self._ref)) is not None:
                return shim
            try:
                spec = json.loads(await trio.Path(self._ref.bundle / CONFIG_FILE).read_bytes())
            except (OSError, ValueError):
                raise FailedPrecondition(
                    f"pod sandbox {self._ref.id[:12]} was never started: run a new sandbox"
                ) from None
            return await self._start.start(spec, task.monitor_cgroup)

    async def _create(self, task: TaskCreate, shim: ShimRecord) -> int:
        bundle = task.ref.bundle
        request = CreateTaskRequest(
            id=task.ref.id,
            bundle=str(bundle),
            terminal=task.terminal,
            stdin=str(bundle / STDIN_FIFO) if task.stdin else "",
            stdout=str(bundle / STDOUT_FIFO),
            stderr="" if task.terminal else str(bundle / STDERR_FIFO),
            options=self._parts.task_options,
        )
        service = self._parts.service(self._ref.id, shim)
        with span("shim create"):
            pid = await service.create(request, timeout_seconds=task.deadline_seconds)
        init = ProcessIdentity.of(pid) if pid > 1 else None
        write_record(bundle, TaskRecord(task.log_path, shim.process, init))
        return pid

    async def start(self, ref: TaskRef) -> None:
        record = read_record(ref.bundle)
        if record is not None:
            # After a restart nobody reads the fifos yet, and what a short process says would go with them.
            await self._parts.pumps.log(ref.id, ref.bundle, record.log_path)
        with span("shim start"):
            await self._service().start(ref.id)

    async def kill(self, ref: TaskRef, signal: int, *, everything: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        if not self._parts.quirks.host_processes:
            await self._kill_by_shim(ref, signal, everything)
            return
        record = read_record(ref.bundle)
        init = record.init if record is not None else None
        if signal == signals.SIGKILL and everything:
            await trio.to_thread.run_sync(self._parts.exits.kill, ref, init)
        elif everything and ref.cgroup:
            await signal_members(lambda: self._parts.members(ref), signal)
        else:
            await signal_init(init, signal)

    async def _kill_by_shim(self, ref: TaskRef, signal: int, everything: bool) -> None:
        if live_shim(self._ref) is None:
            return  # and its guest is gone, or going, too
        try:
            await self._service().kill(ref.id, signal, everything=everything)
        except NotFound:
            return
        except FailedPrecondition:
            if await self.state(ref) not in (TaskState.MISSING, TaskState.STOPPED):
                raise

    async def state(self, ref: TaskRef) -> TaskState:
        await trio.lowlevel.checkpoint()
        if read_record(ref.bundle) is None:
            return TaskState.MISSING
        try:
            answer = await self._service().state(ref.id)
        except NotFound:
            return TaskState.MISSING
        try:
            return _STATES[ProcessStatus(answer.status)]
        except (ValueError, KeyError):
            raise Unavailable(
                f"the shim says that container {ref.id} is in the unknown state {answer.status}"
            ) from None

    async def wait(self, ref: TaskRef) -> Exit:
        return await self._exits.wait(ref)

    async def delete(self, ref: TaskRef) -> None:
        await self._teardown.delete(ref)

    def _execs(self) -> ShimExecs:
        host = self._parts.quirks.host_processes
        return ShimExecs(self._service(), self._parts.members if host else None)

    async def exec_sync(
        self, ref: TaskRef, process: Mapping[str, Any], *, timeout_seconds: float | None, limit_bytes: int
    ) -> ExecResult:
        return await self._execs().run(ref, process, timeout_seconds=timeout_seconds, limit_bytes=limit_bytes)

    async def exec_open(
        self, ref: TaskRef, process: Mapping[str, Any], *, terminal: bool, stdin: bool
    ) -> ExecStream:
        return await self._execs().open(ref, process, terminal=terminal, stdin=stdin)

    async def attach_open(self, ref: TaskRef) -> int:
        record = read_record(ref.bundle)
        if record is None:
            raise FailedPrecondition("cannot attach: the container is gone")
        service = self._service()

        async def end_input() -> None:
            await service.close_stdin(ref.id)

        pump = await self._parts.pumps.log(ref.id, ref.bundle, record.log_path)
        return pump.attachments.open(end_input)

    async def forward_open(self, port: int) -> int:
        raise Unimplemented(f"{self._parts.quirks.program} has no way of its own to forward ports")

    async def update(self, ref: TaskRef, resources: Mapping[str, Any]) -> None:
        if not self._parts.quirks.update:
            raise Unimplemented(
                f"{self._parts.quirks.program} cannot change the resources of a running container"
            )
        await self._service().update(ref.id, resources)

    async def checkpoint(self, ref: TaskRef, images: Path, work: Path, *, timeout_seconds: float) -> None:
        raise Unimplemented(f"containers of {self._parts.quirks.program} cannot be checkpointed")

    async def pause(self, ref: TaskRef) -> None:
        await self._service().pause(ref.id)

    async def resume(self, ref: TaskRef) -> None:
        await self._service().resume(ref.id)

    async def usage(self, ref: TaskRef) -> TaskUsage:
        told = await self._service().stats(ref.id)
        return TaskUsage(told.cpu_ns, told.memory_usage_bytes, told.memory_working_set_bytes, told.pids)

    async def reopen_log(self, ref: TaskRef) -> None:
        record = read_record(ref.bundle)
        if record is None:
            raise NotFound(f"container {ref.id} has no log: it was never created")
        if record.log_path:
            pump = await self._parts.pumps.log(ref.id, ref.bundle, record.log_path)
            await trio.to_thread.run_sync(pump.reopen)

    async def resize(self, ref: TaskRef, *, width: int, height: int) -> None:
        await self._service().resize(ref.id, width, height)

    # beyond the protocol

    def resume_watch(self) -> None:
        """Watch a shim that an earlier daemon started, and read its log again."""
        shim = read_shim(self._ref.bundle)
        if shim is not None:
            self._start.watch(shim)
            if (self._ref.bundle / "log").exists():
                self._parts.pumps.shim_log(self._ref.id, self._ref.bundle)


def _prepare(task: TaskCreate, shim: ShimRecord) -> None:
    """Make the fifos and the record: from here on `delete` knows that there is something to delete."""
    bundle: Path = task.ref.bundle
    make_fifo(bundle / STDOUT_FIFO)
    if not task.terminal:
        make_fifo(bundle / STDERR_FIFO)
    if task.stdin:
        make_fifo(bundle / STDIN_FIFO)
        if task.stdin_once:
            (bundle / STDIN_ONCE_FILE).touch()
    write_record(bundle, TaskRecord(task.log_path, shim.process))
