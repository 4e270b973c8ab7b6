"""How a task ended: conmon's exit file, and what to conclude when conmon cannot write one.

conmon writes the exit code to EXITS/ID (temporary file and rename), then ends. Its pidfd therefore
tells when to look, without a watch on the directory. A pidfd on init covers a monitor that hangs.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.errors import NodedError
from noded.host import oom
from noded.host.cgroups import Cgroups
from noded.host.processes import ProcessIdentity, children_of, kill_identity, reap
from noded.host.stalls import wait_stalled
from noded.model.runtime import Exit, TaskRef
from noded.runtimes.killing import reap_namespace_zombies, stop_and_kill, wait_dead, wait_gone
from noded.runtimes.records import OOM_FILE, PID_FILE, TaskRecord, read_pid_file, read_record

_log = structlog.get_logger(__name__)

# How long after init's death the monitor may take to record it: it writes the rest of the log first.
_RECORD_SECONDS = 10.0
_KILL_SECONDS = 10.0
_UNKNOWN_CODE = 255
_KILLED_CODE = 137  # by SIGKILL


@dataclass(frozen=True, slots=True)
class Exits:
    """Watches tasks of one handler; keeps no state of its own.

    Args:
        shared: whether a task's processes are in the cgroup of its sandbox, not in its own.
        stalled_seconds: how long a signal may keep a monitor stopped before it is continued, and when
            stopped again killed, 0 = for ever.
    """

    directory: Path
    cgroups: Cgroups
    shared: bool = False
    stalled_seconds: float = 0.0

    def path(self, task_id: str) -> Path:
        return self.directory / task_id

    async def wait(self, ref: TaskRef) -> Exit:
        """See `noded.model.runtime.Sandbox.wait`."""
        record = read_record(ref.bundle)
        if record is None:
            return self._recorded(ref) or _unknown("the record of this container's monitor is gone")
        init = self.init(ref, record)
        hung = await self._first_end(ref, record.monitor, init)
        reap(record.monitor.pid)
        if recorded := self._recorded(ref):
            return recorded
        if hung:
            return await self._monitor_hung(ref, record.monitor, init, hung)
        return await self._monitor_died(ref, record.monitor, init)

    def init(self, ref: TaskRef, record: TaskRecord) -> ProcessIdentity | None:
        """Identity of init, also if the daemon died between the runtime's success and its record."""
        if record.init is not None:
            return record.init
        pid = read_pid_file(ref.bundle / PID_FILE)
        if pid is None:
            return None
        if self.shared:
            known = children_of(record.monitor.pid) if record.monitor.exists() else set()
        else:
            known = self.cgroups.procs(self.cgroups.place(ref.cgroup)) if ref.cgroup else set()
        return ProcessIdentity.of(pid) if pid in known else None

    def _recorded(self, ref: TaskRef) -> Exit | None:
        """Read the exit file. The OOM counter is read here: later the cgroup is gone."""
        path = self.path(ref.id)
        try:
            code = parse_exit_code(path.read_text(encoding="ascii", errors="replace"))
            finished_at_ns = path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        return Exit(code, finished_at_ns, oom_killed=self.oom_killed(ref, code))

    def oom_killed(self, ref: TaskRef, code: int) -> bool:
        """Tell whether the task failed after the kernel killed one of its processes for memory.

        The cgroup's own counter decides. conmon's `oom` file is second choice, for a cgroup that
        is gone: on cgroup v1 it appears also when another container of the pod was the victim. systemd
        may remove a scope before conmon has looked: the kernel's log tells of a task that was killed itself.
        """
        if code == 0:
            return False
        cgroup = sandbox_cgroup(ref) if self.shared else ref.cgroup
        place = self.cgroups.place(cgroup) if cgroup else ""
        kills = self.cgroups.oom_kills(place) if place else None
        if kills is not None:
            return kills > 0
        if (ref.bundle / OOM_FILE).exists():
            return True
        return bool(place) and code == _KILLED_CODE and oom.killed_in(place)

    async def _monitor_died(
        self, ref: TaskRef, monitor: ProcessIdentity, init: ProcessIdentity | None
    ) -> Exit:
        """Without a monitor nobody reads the container's output: it would block. So it ends."""
        _log.warning("monitor_died", container=ref.id, pid=monitor.pid)
        finished_at_ns = time.time_ns()
        message = f"the container was killed because its monitor (conmon, pid {monitor.pid}) died"
        try:
            await self.kill_everything(ref, init)
        except NodedError as error:
            message += f"; {error}"
        return Exit(
            _UNKNOWN_CODE, finished_at_ns, oom_killed=self.oom_killed(ref, _UNKNOWN_CODE), message=message
        )

    async def _monitor_hung(
        self, ref: TaskRef, monitor: ProcessIdentity, init: ProcessIdentity | None, how: str
    ) -> Exit:
        """Take the exit code from the zombie that the monitor does not collect, then remove both."""
        code = zombie_exit_code(init.pid) if init is not None else None
        _log.warning("monitor_hung", container=ref.id, pid=monitor.pid, code=code, how=how)
        finished_at_ns = time.time_ns()
        message = f"the container's monitor (conmon, pid {monitor.pid}) {how} and was killed"
        kill_identity(monitor)
        try:
            await wait_gone([monitor], timeout_seconds=_KILL_SECONDS)
            await self.kill_everything(ref, init)
        except NodedError as error:
            message += f"; {error}"
        if recorded := self._recorded(ref):
            return recorded
        code = _UNKNOWN_CODE if code is None else code
        return Exit(code, finished_at_ns, oom_killed=self.oom_killed(ref, code), message=message)

    async def _first_end(self, ref: TaskRef, monitor: ProcessIdentity, init: ProcessIdentity | None) -> str:
        """Wait for the monitor's end, ""; or until it must be given up, and how one knows."""
        hung = ""

        async def watch_init(identity: ProcessIdentity, scope: trio.CancelScope) -> None:
            nonlocal hung
            await wait_dead(identity)
            await trio.sleep(_RECORD_SECONDS)
            hung = "did not record the exit"
            scope.cancel()

        async def watch_stall(scope: trio.CancelScope) -> None:
            nonlocal hung
            await wait_stalled(monitor, self.stalled_seconds, monitor_of=ref.id)
            hung = "was stopped by a signal again after it was continued,"
            scope.cancel()

        async with trio.open_nursery() as nursery:
            if init is not None:
                nursery.start_soon(watch_init, init, nursery.cancel_scope)
            nursery.start_soon(watch_stall, nursery.cancel_scope)
            await wait_dead(monitor)
            nursery.cancel_scope.cancel()
        return hung

    async def kill_everything(self, ref: TaskRef, init: ProcessIdentity | None) -> None:
        """Kill all processes of the task's cgroup and wait for them; reap orphans of a dead monitor.

        Raises: Unavailable naming what survives.
        """
        victims = await trio.to_thread.run_sync(self.kill, ref, init)
        await wait_gone(victims, timeout_seconds=_KILL_SECONDS)

    def kill(self, ref: TaskRef, init: ProcessIdentity | None) -> list[ProcessIdentity]:
        """Kill all processes of the task's cgroup; return them, for reaping. Blocks until they are dead."""
        victims = {} if init is None else {init.pid: init}
        if init is not None:
            reap_namespace_zombies(init)
        if ref.cgroup:
            place = self.cgroups.place(ref.cgroup)
            members = self.cgroups.procs(place)
            for pid in members:
                if (identity := ProcessIdentity.of(pid)) is not None:
                    victims[pid] = identity
            if members:
                self.cgroups.kill(place)
        elif init is not None:
            for identity in stop_and_kill([init], set):
                victims[identity.pid] = identity
        if init is not None:
            kill_identity(init)
        return list(victims.values())


def sandbox_cgroup(ref: TaskRef) -> str:
    """The cgroup of the task's sandbox: the two are siblings whose names end with their ids."""
    return ref.cgroup.replace(ref.id, ref.sandbox_id)


def parse_exit_code(text: str) -> int:
    """Return the code in an exit file; what is not a code of a process counts as unknown."""
    try:
        code = int(text)
    except ValueError:
        return _UNKNOWN_CODE
    return code if 0 <= code <= 255 else _UNKNOWN_CODE


def zombie_exit_code(pid: int) -> int | None:
    """Return how an unreaped process ended, from proc(5) stat field 52, None if it is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = stat[stat.rindex(")") + 2 :].split()
        if fields[0] not in ("Z", "X"):
            return None
        code = os.waitstatus_to_exitcode(int(fields[49]))
    except (OSError, ValueError, IndexError):
        return None
    return 128 - code if code < 0 else code


def _unknown(message: str) -> Exit:
    return Exit(_UNKNOWN_CODE, time.time_ns(), message=message)
