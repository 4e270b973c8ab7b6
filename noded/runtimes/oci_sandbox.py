"""The tasks of one pod sandbox, run by a program with runc's command line."""

from __future__ import annotations

import json
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NodedError,
    NotFound,
    Unavailable,
    Unimplemented,
)
from noded.host.cgroups import Cgroups
from noded.host.processes import ProcessIdentity, children_of, kill_identity
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
from noded.runtimes import control
from noded.runtimes.attach import attach_open
from noded.runtimes.command import CommandLine, Completed, run
from noded.runtimes.conmon import Conmon
from noded.runtimes.criu import check_criu, explain
from noded.runtimes.exec import Execs
from noded.runtimes.exec_stream import ExecStreams
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.forward import Forwards
from noded.runtimes.monitor import Exits
from noded.runtimes.quirks import OciQuirks
from noded.runtimes.records import (
    CONFIG_FILE,
    DUMP_LOG,
    RESTORE_LOG,
    TaskRecord,
    read_record,
    runtime_state,
    write_record,
)
from noded.runtimes.restore_mounts import name_masked_directories
from noded.runtimes.signalling import signal_init, signal_members
from noded.runtimes.stand_in import start_by_stand_in
from noded.runtimes.teardown import Teardown
from noded.runtimes.usage import parse_usage
from noded.runtimes.wrapper import without_net_core

_log = structlog.get_logger(__name__)

_COMMAND_SECONDS = 60.0
_KILL_SECONDS = 10.0  # a runtime that forwards signals answers at once, or its sandbox hangs

_STATES = {
    "creating": TaskState.CREATED,
    "created": TaskState.CREATED,
    "running": TaskState.RUNNING,
    "paused": TaskState.PAUSED,
    "stopped": TaskState.STOPPED,
}


@dataclass(frozen=True, slots=True)
class OciParts:
    """What one handler's runtime and its sandboxes share. No state."""

    quirks: OciQuirks
    command: CommandLine
    runtime_root: Path
    cgroups: Cgroups
    conmon: Conmon
    exits: Exits
    execs: Execs
    forwards: Forwards
    teardown: Teardown

    async def run(self, action: str, verb: str, *args: str, stdin: bytes = b"") -> Completed:
        """Run a runtime command that must succeed; `action` is for the error message."""
        done = await self.command.run(verb, *args, timeout_seconds=_COMMAND_SECONDS, stdin=stdin)
        if done.returncode != 0:
            raise runtime_error(f"{self.quirks.program} {action}", done.stderr, ending(done.returncode))
        return done


def _record_helpers(ref: TaskRef, record: TaskRecord) -> None:
    """Note what the runtime has started beside init, all of it children of the monitor."""
    found = (ProcessIdentity.of(pid) for pid in children_of(record.monitor.pid))
    helpers = tuple(identity for identity in found if identity not in (None, record.init))
    write_record(ref.bundle, replace(record, helpers=helpers))


def network_namespace(bundle: Path) -> str:
    """The path of the network namespace that a bundle's spec joins, "" for none."""
    spec = json.loads((bundle / CONFIG_FILE).read_bytes())
    return next(
        (str(one.get("path", "")) for one in spec["linux"]["namespaces"] if one["type"] == "network"), ""
    )


def infra_task(ref: SandboxRef) -> TaskRef:
    """Name the sandbox's own task. Its cgroup is what its written spec says."""
    try:
        spec = json.loads((ref.bundle / CONFIG_FILE).read_bytes())
        cgroup = str(spec["linux"].get("cgroupsPath", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        cgroup = ""
    return TaskRef(id=ref.id, sandbox_id=ref.id, bundle=ref.bundle, cgroup=cgroup)


class OciSandbox:
    """Implements `noded.model.runtime.Sandbox`; contracts are documented there."""

    def __init__(self, parts: OciParts, ref: SandboxRef) -> None:
        self._parts = parts
        self._ref = ref

    async def infra_pid(self) -> int | None:
        await trio.lowlevel.checkpoint()
        record = read_record(self._ref.bundle)
        if record is None:
            return None
        init = self._parts.exits.init(infra_task(self._ref), record)
        return init.pid if init is not None and init.alive() else None

    async def create(self, task: TaskCreate) -> int:
        if task.restore_from is None:
            return await self._parts.conmon.create(task)
        await check_criu(self._parts.command.environment)
        if name := self._parts.quirks.masked_directories:
            source = self._parts.runtime_root / Path(name).name
            await trio.to_thread.run_sync(name_masked_directories, task.ref.bundle, name, source)
        try:
            return await self._parts.conmon.create(task)
        except NodedError as error:
            raise explain(error, task.ref.bundle / RESTORE_LOG) from error

    async def start(self, ref: TaskRef) -> None:
        action = f"could not start container {ref.id}"
        record = read_record(ref.bundle)
        if self._parts.quirks.stand_in and ref.id != ref.sandbox_id:
            stand_in = self._parts.exits.init(ref, record) if record is not None else None
            with trio.move_on_after(_COMMAND_SECONDS) as scope:
                await start_by_stand_in(ref.bundle, stand_in, f"{self._parts.quirks.program} {action}")
            if scope.cancelled_caught:
                raise DeadlineExceeded(
                    f"{self._parts.quirks.program} {action}: no answer within {_COMMAND_SECONDS:g} s"
                )
        elif self._parts.quirks.hides_net_core and ref.id == ref.sandbox_id:
            await self._start_without_net_core(ref, action)
        else:
            await self._parts.run(action, "start", ref.id)
        if record is not None and not self._parts.quirks.host_processes:
            await trio.to_thread.run_sync(_record_helpers, ref, record)

    async def _start_without_net_core(self, ref: TaskRef, action: str) -> None:
        command = self._parts.command
        argv = command.argv("start", ref.id)
        if netns := network_namespace(ref.bundle):
            argv = without_net_core(netns, argv)
        done = await run(argv, timeout_seconds=_COMMAND_SECONDS, environment=command.environment)
        if done.returncode != 0:
            raise runtime_error(
                f"{self._parts.quirks.program} {action}", done.stderr, ending(done.returncode)
            )

    async def kill(self, ref: TaskRef, signal: int, *, everything: bool = False) -> None:
        await trio.lowlevel.checkpoint()
        if not self._parts.quirks.host_processes:
            await self._kill_by_runtime(ref, signal, everything)
            return
        record = read_record(ref.bundle)
        init = self._parts.exits.init(ref, record) if record is not None else None
        if signal == signals.SIGKILL and everything:
            await trio.to_thread.run_sync(self._parts.exits.kill, ref, init)
        elif everything and ref.cgroup:
            cgroups = self._parts.cgroups
            await signal_members(lambda: cgroups.procs(cgroups.place(ref.cgroup)), signal)
        else:
            await signal_init(init, signal)

    async def _kill_by_runtime(self, ref: TaskRef, signal: int, everything: bool) -> None:
        args = [*(["--all"] if everything else []), ref.id, str(int(signal))]
        final = signal == signals.SIGKILL and everything
        try:
            with trio.fail_after(_KILL_SECONDS):
                await self._parts.run(f"could not signal container {ref.id}", "kill", *args)
        except NotFound:
            return
        except FailedPrecondition:
            state = await self.state(ref)
            if state is TaskState.CREATED and final:
                await self._end_stand_in(ref)
            elif state not in (TaskState.MISSING, TaskState.STOPPED):
                raise
        except trio.TooSlowError:
            if not final:
                raise DeadlineExceeded(
                    f"{self._parts.quirks.program} kill {ref.id} did not answer within {_KILL_SECONDS:g} s"
                ) from None
            # What does not even kill is stuck as a whole, with all containers in it.
            _log.warning("sandbox_does_not_answer", sandbox=ref.sandbox_id, container=ref.id)
            await self._kill_sandbox()

    async def _end_stand_in(self, ref: TaskRef) -> None:
        """End a task that was never started: its monitor then records the exit."""
        record = read_record(ref.bundle)
        stand_in = self._parts.exits.init(ref, record) if record is not None else None
        if stand_in is not None:
            kill_identity(stand_in, signals.SIGKILL)
        await trio.lowlevel.checkpoint()

    async def _kill_sandbox(self) -> None:
        task = infra_task(self._ref)
        record = read_record(task.bundle)
        init = self._parts.exits.init(task, record) if record is not None else None
        await self._parts.exits.kill_everything(task, init)

    async def state(self, ref: TaskRef) -> TaskState:
        await trio.lowlevel.checkpoint()
        if not runtime_state(self._parts.runtime_root, ref.id):
            return TaskState.MISSING
        try:
            done = await self._parts.run(f"could not tell the state of container {ref.id}", "state", ref.id)
        except NotFound:
            return TaskState.MISSING
        except FailedPrecondition:
            if not runtime_state(self._parts.runtime_root, ref.id):  # removed while we asked
                return TaskState.MISSING
            raise
        try:
            return _STATES[json.loads(done.stdout)["status"]]
        except (ValueError, KeyError, TypeError):
            raise Unavailable(
                f"{self._parts.quirks.program} state {ref.id} answered nonsense: {done.stdout[:200]!r}"
            ) from None

    async def wait(self, ref: TaskRef) -> Exit:
        return await self._parts.exits.wait(ref)

    async def delete(self, ref: TaskRef) -> None:
        await self._parts.teardown.delete(ref)

    async def exec_sync(
        self, ref: TaskRef, process: Mapping[str, Any], *, timeout_seconds: float | None, limit_bytes: int
    ) -> ExecResult:
        return await self._parts.execs.run(
            ref, process, timeout_seconds=timeout_seconds, limit_bytes=limit_bytes
        )

    async def exec_open(
        self, ref: TaskRef, process: Mapping[str, Any], *, terminal: bool, stdin: bool
    ) -> ExecStream:
        streams = ExecStreams(self._parts.command, self._parts.quirks.program)
        return await streams.open(ref, process, terminal=terminal, stdin=stdin)

    async def attach_open(self, ref: TaskRef) -> int:
        return await attach_open(ref.bundle)

    async def forward_open(self, port: int) -> int:
        return await self._parts.forwards.open(self._ref.id, self._ref.bundle, port)

    async def update(self, ref: TaskRef, resources: Mapping[str, Any]) -> None:
        if not self._parts.quirks.update:
            raise Unimplemented(
                f"{self._parts.quirks.program} cannot change the resources of a running container"
            )
        await self._parts.run(
            f"could not update container {ref.id}",
            "update", "--resources", "-", ref.id,
            stdin=json.dumps(resources).encode(),
        )  # fmt: skip

    async def checkpoint(self, ref: TaskRef, images: Path, work: Path, *, timeout_seconds: float) -> None:
        command, program = self._parts.command, self._parts.quirks.program
        await check_criu(command.environment)
        done = await command.run(
            "checkpoint",
            "--leave-running",
            "--file-locks",
            f"--image-path={images}",
            f"--work-path={work}",
            ref.id,
            timeout_seconds=timeout_seconds,
        )
        if done.returncode != 0:
            action = f"{program} could not checkpoint container {ref.id}"
            raise explain(runtime_error(action, done.stderr, ending(done.returncode)), work / DUMP_LOG)

    async def pause(self, ref: TaskRef) -> None:
        await self._parts.run(f"could not pause container {ref.id}", "pause", ref.id)

    async def resume(self, ref: TaskRef) -> None:
        try:
            await self._parts.run(f"could not resume container {ref.id}", "resume", ref.id)
        except NodedError:
            if await self.state(ref) is TaskState.PAUSED:
                raise

    async def usage(self, ref: TaskRef) -> TaskUsage:
        done = await self._parts.run(
            f"could not tell the usage of container {ref.id}", "events", "--stats", ref.id
        )
        return parse_usage(done.stdout, self._parts.quirks.program)

    async def reopen_log(self, ref: TaskRef) -> None:
        record = read_record(ref.bundle)
        if record is None:
            raise NotFound(f"container {ref.id} has no log: it was never created")
        if record.log_path:
            await control.reopen_log(ref.bundle, Path(record.log_path))

    async def resize(self, ref: TaskRef, *, width: int, height: int) -> None:
        await control.resize(ref.bundle, width, height)
