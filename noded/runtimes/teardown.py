"""Removing every trace of a task, whatever state it is in.

Each step is bounded, timed and logged, and right when there is nothing to do:

    processes    SIGKILL to the task's cgroup and init
    monitor      time to write the rest of the log, then SIGKILL with the runtime below it
    runtime      `delete --force`: mounts, the runtime's own state; first where processes are not the host's
    cgroup       the task's cgroup, if the runtime left it
    files        exit file, sockets, fifos, records, the runtime's state if it could not remove it
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.errors import DeadlineExceeded, NodedError, Unavailable
from noded.host.cgroups import Cgroups
from noded.host.files import names_in, remove_temporaries
from noded.host.processes import ProcessIdentity, argument_of, commands, reap
from noded.model.runtime import TaskRef
from noded.runtimes.command import CommandLine
from noded.runtimes.failures import ending, plain_words
from noded.runtimes.killing import is_stopped, stop_and_kill, wait_dead, wait_gone
from noded.runtimes.monitor import Exits
from noded.runtimes.records import leftovers, read_record, runtime_state

_log = structlog.get_logger(__name__)

_RUNTIME_SECONDS = 20.0
# A monitor whose container is dead writes the rest of the log, which may take a moment on a slow disk.
_MONITOR_SECONDS = 5.0
_KILL_SECONDS = 10.0
_REAP_SECONDS = 0.02  # between two looks whether a dead process has become our child


@dataclass(frozen=True, slots=True)
class Teardown:
    """How to remove tasks of one handler."""

    command: CommandLine
    runtime_name: str
    runtime_root: Path
    exits: Exits
    cgroups: Cgroups
    host_processes: bool

    async def delete(self, ref: TaskRef) -> None:
        """See `noded.model.runtime.Sandbox.delete`.

        Raises: Unavailable naming what resists: a process that cannot be killed, a busy cgroup.
            What was done stays done; call again.
        Cancellation: safe between and within steps; call again.
        """
        record = read_record(ref.bundle)
        init = self.exits.init(ref, record) if record is not None else None
        monitors = [record.monitor] if record is not None else await self._find_monitors(ref)
        victims: list[ProcessIdentity] = []

        async def processes() -> None:
            victims.extend(await trio.to_thread.run_sync(self.exits.kill, ref, init))

        async def monitor() -> None:
            await self._end_monitors(monitors, created=init is not None)
            # What the monitor did not collect is our child now.
            await wait_gone(victims, timeout_seconds=_KILL_SECONDS)

        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("processes", processes),
            ("monitor", monitor),
            # Last of these: runtimes poll ten times a second for the end of what they kill.
            ("runtime", lambda: self._runtime_delete(ref, record.helpers if record is not None else ())),
        ]
        if not self.host_processes:
            steps = [steps[2], *steps[:2]]
        steps += [("cgroup", lambda: self._remove_cgroup(ref)), ("files", lambda: self._remove_files(ref))]
        timings: dict[str, float] = {}
        for name, step in steps:
            started = trio.current_time()
            try:
                await step()
            except NodedError as error:
                error.add_note(f"while deleting container {ref.id}, step {name}")
                _log.warning("task_delete_failed", container=ref.id, step=name, error=str(error), **timings)
                raise
            timings[f"{name}_seconds"] = round(trio.current_time() - started, 4)
        _log.debug("task_deleted", container=ref.id, **timings)

    async def _end_monitors(self, monitors: list[ProcessIdentity], *, created: bool) -> None:
        """Let a monitor finish the log and go; kill one that does not, or that is still creating."""
        for monitor in monitors:
            with trio.move_on_after(0 if is_stopped(monitor) or not created else _MONITOR_SECONDS) as scope:
                await wait_dead(monitor)
            if scope.cancelled_caught and monitor.alive():
                killed = await trio.to_thread.run_sync(stop_and_kill, [monitor], set)
                await wait_gone([monitor, *killed], timeout_seconds=_KILL_SECONDS)
            reap(monitor.pid)

    async def _runtime_delete(self, ref: TaskRef, helpers: Collection[ProcessIdentity]) -> None:
        if not runtime_state(self.runtime_root, ref.id):
            return
        async with trio.open_nursery() as nursery:
            for helper in helpers:
                # The runtime takes a zombie for alive: it must be reaped while the runtime waits for it.
                nursery.start_soon(_reap_dead, helper)
            try:
                done = await self.command.run("delete", "--force", ref.id, timeout_seconds=_RUNTIME_SECONDS)
                problem = plain_words(done.stderr) or ending(done.returncode) if done.returncode else ""
            except (DeadlineExceeded, Unavailable) as error:
                problem = str(error)
            nursery.cancel_scope.cancel()
        if left := [helper for helper in helpers if helper.alive()]:
            killed = await trio.to_thread.run_sync(stop_and_kill, left, set)
            await wait_gone([*left, *killed], timeout_seconds=_KILL_SECONDS)
        if problem:
            _log.warning("runtime_delete_failed", container=ref.id, runtime=self.runtime_name, error=problem)

    def _has_cgroup(self, ref: TaskRef) -> bool:
        return bool(ref.cgroup) and self.cgroups.exists(self.cgroups.place(ref.cgroup))

    async def _remove_cgroup(self, ref: TaskRef) -> None:
        if self._has_cgroup(ref):
            place = self.cgroups.place(ref.cgroup)
            await trio.to_thread.run_sync(self._remove_killed_cgroup, place)

    def _remove_killed_cgroup(self, place: str) -> None:
        self.cgroups.kill(place)
        self.cgroups.remove(place)

    async def _remove_files(self, ref: TaskRef) -> None:
        await trio.to_thread.run_sync(self._unlink, ref)

    def _unlink(self, ref: TaskRef) -> None:
        # A create that was killed leaves a state that the runtime itself cannot read.
        for path in runtime_state(self.runtime_root, ref.id):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        found = leftovers(ref.bundle)
        remove_temporaries(ref.bundle)
        exits = self.exits.directory
        # glib writes ID.XXXXXX and renames it.
        written = (name for name in names_in(exits) if name == ref.id or name.startswith(f"{ref.id}."))
        for path in (*found, *(exits / name for name in written)):
            path.unlink(missing_ok=True)

    async def _find_monitors(self, ref: TaskRef) -> list[ProcessIdentity]:
        """Find a monitor that was started by a daemon which died before it could record it."""
        return await trio.to_thread.run_sync(find_monitors, ref.id)


async def _reap_dead(identity: ProcessIdentity) -> None:
    """Reap a process as soon as it is dead and ours: until its monitor ends it is the monitor's."""
    await wait_dead(identity)
    while identity.exists():
        reap(identity.pid)
        await trio.sleep(_REAP_SECONDS)


def find_monitors(task_id: str) -> list[ProcessIdentity]:
    """Return the live conmon processes of one task, by their command lines. Blocks on /proc."""
    found = []
    for pid, words in commands():
        if b"--exit-dir" not in words or argument_of(words, b"--cid") != task_id.encode():
            continue
        if (identity := ProcessIdentity.of(pid)) is not None:
            found.append(identity)
    return found
