"""Removing every trace of a task or of a whole sandbox, whatever state shim and task are in.

Each step is bounded, and right when there is nothing to do. Of a task:

    processes   SIGKILL to the task's cgroup and init, or through the shim where they are a guest's
    shim        Delete; when it cannot (dead, stopped, late), its program's `delete` command
    output      the last of it to the log
    cgroup      the task's, if it was left
    mounts      what was left in the bundle, but for the root file system, which is the engine's
    files       fifos, records, the shim's own

A sandbox: its sandbox container; Shutdown, then SIGKILL for the shim; its socket; mounts and files.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog
import trio

from noded.errors import NodedError, NotFound, Unavailable
from noded.host import mounts
from noded.host.files import remove_temporaries
from noded.host.processes import ProcessIdentity, kill_identity, reap
from noded.model.runtime import SandboxRef, TaskRef
from noded.runtimes.killing import abandoned_zombies, is_stopped, wait_dead, wait_gone
from noded.runtimes.records import CONFIG_FILE, TASK_FILE, TaskRecord, read_record
from noded.runtimes.shim_bootstrap import find_shims, read_address, remove_socket, usual_address
from noded.runtimes.shim_exits import end_shim
from noded.runtimes.shim_parts import ShimParts
from noded.runtimes.shim_record import (
    SHIM_LEFTOVERS,
    TASK_LEFTOVERS,
    ShimRecord,
    read_shim,
    remove_leftovers,
)

_log = structlog.get_logger(__name__)

_KILL_SECONDS: Final = 10.0
_COLLECT_SECONDS: Final = 5.0  # for a shim to notice that a killed task has ended
_DELETE_SECONDS: Final = 15.0
_GUEST_SECONDS: Final = 20.0  # for a guest to end what was killed in it
_PROGRAM_SECONDS: Final = 20.0
_SHUTDOWN_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class ShimTeardown:
    """How to remove one pod's tasks and its shim."""

    parts: ShimParts
    sandbox: SandboxRef

    async def delete(self, ref: TaskRef) -> None:
        """See `noded.model.runtime.Sandbox.delete`.

        Raises: Unavailable naming what resists. What was done stays done; call again.
        Cancellation: safe between and within steps; call again.
        """
        async with self.parts.lock(self.sandbox.id):
            await self._delete(ref)

    async def _delete(self, ref: TaskRef) -> None:
        record = read_record(ref.bundle)
        shim = read_shim(self.sandbox.bundle)
        try:
            if record is not None:
                await self._end(ref, record, shim)
            if ref.cgroup:
                await trio.to_thread.run_sync(self._remove_cgroup, ref)
            await self.parts.pumps.drop_log(ref.id)
            await trio.to_thread.run_sync(self._remove_files, ref)
        except NodedError as error:
            error.add_note(f"while deleting container {ref.id}")
            _log.warning("task_delete_failed", container=ref.id, error=str(error))
            raise

    async def _end(self, ref: TaskRef, record: TaskRecord, shim: ShimRecord | None) -> None:
        victims: list[ProcessIdentity] = []
        if self.parts.quirks.host_processes:
            victims = await trio.to_thread.run_sync(self.parts.exits.kill, ref, record.init)
        forgotten = False
        if shim is not None and shim.process == record.monitor and shim.process.alive():
            forgotten = await self._delete_by_shim(ref, shim)
        if not forgotten and ref.bundle.is_dir():
            await self.parts.bootstrap.delete(ref.id, ref.bundle, timeout_seconds=_PROGRAM_SECONDS)
        await wait_gone(victims, timeout_seconds=_KILL_SECONDS)

    async def _delete_by_shim(self, ref: TaskRef, shim: ShimRecord) -> bool:
        """Have the shim forget the task; False when it did not. A shim that hangs is killed."""
        if is_stopped(shim.process):
            _log.warning("shim_stopped", sandbox=self.sandbox.id, pid=shim.process.pid)
            await end_shim(shim.process)
            return False
        service = self.parts.service(self.sandbox.id, shim)
        try:
            host = self.parts.quirks.host_processes
            if not host:
                with suppress(NotFound):  # it has ended
                    await service.kill(ref.id, signal.SIGKILL, everything=True)
            await service.wait(ref.id, timeout_seconds=_COLLECT_SECONDS if host else _GUEST_SECONDS)
            await service.delete(ref.id, timeout_seconds=_DELETE_SECONDS)
        except NotFound:
            return False  # it was never created, or not completely
        except NodedError as error:
            _log.warning("shim_does_not_delete", container=ref.id, reason=str(error))
            if self.parts.quirks.host_processes:
                # It serves nobody; and while it lives it may undo what is done without it.
                await end_shim(shim.process)
            return False
        return True

    def _remove_cgroup(self, ref: TaskRef) -> None:
        place = self.parts.cgroups.place(ref.cgroup)
        if self.parts.cgroups.exists(place):
            self.parts.cgroups.kill(place)
            self.parts.cgroups.remove(place)

    def _remove_files(self, ref: TaskRef) -> None:
        own = ref.id == self.sandbox.id
        _unmount_below(ref.bundle, keep=None if own else ref.bundle / "rootfs")
        remove_temporaries(ref.bundle)
        remove_leftovers(ref.bundle, TASK_LEFTOVERS)
        # Last: it tells that there is something to remove.
        (ref.bundle / TASK_FILE).unlink(missing_ok=True)

    async def destroy(self) -> None:
        """See `noded.model.runtime.Runtime.destroy_sandbox`. Raises and cancellation: as `delete`."""
        ref = self.sandbox
        async with self.parts.lock(ref.id):
            await self.parts.pumps.stop_watch(ref.id)
            infra = self.parts.sandbox_task(ref)
            record, shim = read_record(ref.bundle), read_shim(ref.bundle)
            await self._delete(infra)
            await self._end_shim(shim)
            if record is not None and record.init is not None and not self.parts.quirks.host_processes:
                # The virtual machine, if the shim left it.
                kill_identity(record.init)
                await wait_gone([record.init], timeout_seconds=_KILL_SECONDS)
            await self.parts.pumps.drop_sandbox(ref.id)
            await trio.to_thread.run_sync(self._remove_sandbox_files, shim)

    async def _end_shim(self, shim: ShimRecord | None) -> None:
        if shim is not None and shim.process.alive() and not is_stopped(shim.process):
            service = self.parts.service(self.sandbox.id, shim)
            with trio.move_on_after(_SHUTDOWN_SECONDS):
                try:
                    await service.shutdown(self.sandbox.id, timeout_seconds=_SHUTDOWN_SECONDS)
                except Unavailable:
                    pass  # it ended before it answered
                except NodedError as error:
                    _log.warning("shim_not_shut_down", sandbox=self.sandbox.id, reason=str(error))
                # A shim that still has tasks stays; then it is killed.
                await wait_dead(shim.process)
        strays = await trio.to_thread.run_sync(find_shims, self.sandbox.id)
        if shim is not None:
            strays.append(shim.process)
        for stray in strays:
            await end_shim(stray)
        if shim is None:
            # One that died before it was known is a nameless child now.
            program = self.parts.bootstrap.program
            for zombie in await trio.to_thread.run_sync(abandoned_zombies, program, 0):
                reap(zombie.pid)

    def _remove_sandbox_files(self, shim: ShimRecord | None) -> None:
        bundle = self.sandbox.bundle
        told = shim.address if shim is not None else ""
        for address in {told, read_address(bundle), usual_address(self.sandbox.id)}:
            remove_socket(address)
        neighbour = self.parts.neighbour(self.sandbox)
        if neighbour.is_symlink():
            neighbour.unlink()
        _unmount_below(bundle, keep=None)
        remove_leftovers(bundle, SHIM_LEFTOVERS)
        # Last: it tells which cgroup to clean.
        (bundle / CONFIG_FILE).unlink(missing_ok=True)


def _unmount_below(bundle: Path, *, keep: Path | None) -> None:
    """Unmount what is below a bundle, but for one mount point and what is below that."""
    kept = None if keep is None else keep.parent.resolve() / keep.name
    for point in mounts.mounts_below(bundle):
        if kept is None or not point.is_relative_to(kept):
            mounts.unmount(point, detach=True)
