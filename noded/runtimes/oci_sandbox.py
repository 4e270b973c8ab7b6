"""The tasks of one pod sandbox, run by a program with runc's command line."""

from __future__ import annotations

import json
import signal as signals
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from noded.errors import FailedPrecondition, NotFound, Unavailable, Unimplemented
from noded.host.cgroups import Cgroups
from noded.host.processes import ProcessIdentity, kill_identity
from noded.model.runtime import ExecResult, Exit, SandboxRef, TaskCreate, TaskRef, TaskState
from noded.runtimes import control
from noded.runtimes.command import CommandLine, Completed
from noded.runtimes.conmon import Conmon
from noded.runtimes.exec import Execs
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.killing import reap_namespace_zombies
from noded.runtimes.monitor import Exits
from noded.runtimes.quirks import OciQuirks
from noded.runtimes.records import CONFIG_FILE, read_record
from noded.runtimes.teardown import Teardown

_COMMAND_SECONDS = 60.0

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
    teardown: Teardown

    async def run(self, action: str, verb: str, *args: str, stdin: bytes = b"") -> Completed:
        """Run a runtime command that must succeed; `action` is for the error message."""
        done = await self.command.run(verb, *args, timeout_seconds=_COMMAND_SECONDS, stdin=stdin)
        if done.returncode != 0:
            raise runtime_error(f"{self.quirks.program} {action}", done.stderr, ending(done.returncode))
        return done


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
        return await self._parts.conmon.create(task)

    async def start(self, ref: TaskRef) -> None:
        await self._parts.run(f"could not start container {ref.id}", "start", ref.id)

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
            await trio.to_thread.run_sync(self._signal_cgroup, ref, signal)
        elif init is not None and init.alive():
            kill_identity(init, signal)
            if signal == signals.SIGKILL:
                await trio.to_thread.run_sync(reap_namespace_zombies, init)

    def _signal_cgroup(self, ref: TaskRef, signal: int) -> None:
        for pid in self._parts.cgroups.procs(self._parts.cgroups.place(ref.cgroup)):
            if (identity := ProcessIdentity.of(pid)) is not None:
                kill_identity(identity, signal)

    async def _kill_by_runtime(self, ref: TaskRef, signal: int, everything: bool) -> None:
        args = [*(["--all"] if everything else []), ref.id, str(signal)]
        try:
            await self._parts.run(f"could not signal container {ref.id}", "kill", *args)
        except NotFound:
            return
        except FailedPrecondition:
            if await self.state(ref) not in (TaskState.MISSING, TaskState.STOPPED):
                raise

    async def state(self, ref: TaskRef) -> TaskState:
        await trio.lowlevel.checkpoint()
        if not (self._parts.runtime_root / ref.id).exists():
            return TaskState.MISSING
        try:
            done = await self._parts.run(f"could not tell the state of container {ref.id}", "state", ref.id)
        except NotFound:
            return TaskState.MISSING
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

    async def reopen_log(self, ref: TaskRef) -> None:
        record = read_record(ref.bundle)
        if record is None:
            raise NotFound(f"container {ref.id} has no log: it was never created")
        if record.log_path:
            await control.reopen_log(ref.bundle, Path(record.log_path))

    async def resize(self, ref: TaskRef, *, width: int, height: int) -> None:
        await control.resize(ref.bundle, width, height)
