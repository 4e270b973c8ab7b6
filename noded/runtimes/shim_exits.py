"""How a task of a shim ended: what the shim says, and what to conclude when it cannot say it.

The shim keeps the exit of a task until the task is deleted, so it can be asked later, by another
daemon, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

import structlog
import trio

from noded.errors import NodedError, NotFound
from noded.host.processes import ProcessIdentity, kill_identity, reap
from noded.model.runtime import Exit, SandboxRef, TaskRef
from noded.runtimes.killing import is_stopped, wait_dead, wait_gone
from noded.runtimes.monitor import zombie_exit_code
from noded.runtimes.records import TaskRecord, read_record
from noded.runtimes.shim_parts import ShimParts
from noded.runtimes.shim_record import ShimRecord, read_shim
from noded.runtimes.ttrpc_client import ConnectionLost
from noded.wire.ttrpc_task import WaitResponse

_log = structlog.get_logger(__name__)

_UNKNOWN_CODE: Final = 255
_TELL_SECONDS: Final = 5.0  # what a shim may take to tell the end of a process that is dead
_DEATH_SECONDS: Final = 2.0  # from the loss of a connection to the death of the shim that closed it
_KILL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ShimExits:
    """Watches the tasks of one pod; keeps no state of its own."""

    parts: ShimParts
    sandbox: SandboxRef

    async def wait(self, ref: TaskRef) -> Exit:
        """See `noded.model.runtime.Sandbox.wait`."""
        record = read_record(ref.bundle)
        if record is None:
            return _unknown("the record of this container's shim is gone")
        await self._resume_log(ref, record)
        shim = read_shim(self.sandbox.bundle)
        if shim is None or shim.process != record.monitor:
            # The container's shim died, and the pod has a new one or none.
            return await self._shim_gone(ref, record, f"its shim (pid {record.monitor.pid}) died")
        watch = _Watch(self, ref, record, shim)
        answer = await watch.run()
        if answer is None:
            return await self._shim_gone(ref, record, watch.problem, useless=watch.useless)
        if self.parts.pumps.has_log(ref.id):
            # So that a client that sees the exit finds the whole log.
            pump = await self.parts.pumps.log(ref.id, ref.bundle, record.log_path)
            await pump.finish()
        ended_ns = answer.exited_at.ns if answer.exited_at is not None else 0
        code = answer.exit_status if answer.exit_status <= _UNKNOWN_CODE else _UNKNOWN_CODE
        return Exit(
            code,
            ended_ns if ended_ns > 0 else time.time_ns(),
            oom_killed=self.parts.exits.oom_killed(ref, code),
        )

    async def _resume_log(self, ref: TaskRef, record: TaskRecord) -> None:
        """Read the output again after a restart of the daemon."""
        try:
            await self.parts.pumps.log(ref.id, ref.bundle, record.log_path)
        except NodedError as error:
            _log.warning("container_log_not_resumed", container=ref.id, reason=str(error))

    async def _shim_gone(
        self, ref: TaskRef, record: TaskRecord, problem: str, *, useless: bool = True
    ) -> Exit:
        """Without a shim nobody carries the container's output or collects its processes: it ends.

        Args:
            useless: the shim can serve no other container either, and is killed if it lives.
        """
        _log.warning("shim_gone", container=ref.id, pid=record.monitor.pid, reason=problem)
        host = self.parts.quirks.host_processes
        code = zombie_exit_code(record.init.pid) if host and record.init is not None else None
        finished_at_ns = time.time_ns()
        message = f"the container was killed because {problem}"
        try:
            if useless:
                await end_shim(record.monitor)
            if host:
                await self.parts.exits.kill_everything(ref, record.init)
        except NodedError as error:
            message += f"; {error}"
        code = _UNKNOWN_CODE if code is None else code
        return Exit(code, finished_at_ns, oom_killed=self.parts.exits.oom_killed(ref, code), message=message)


class _Watch:
    """One wait: the shim's word against the signs that it will never come."""

    def __init__(self, exits: ShimExits, ref: TaskRef, record: TaskRecord, shim: ShimRecord) -> None:
        self._service = exits.parts.service(exits.sandbox.id, shim)
        self._ref = ref
        self._init = record.init
        self._shim = shim.process
        self._answer: WaitResponse | None = None
        self._scope = trio.CancelScope()
        self.problem = ""
        self.useless = False

    async def run(self) -> WaitResponse | None:
        """Return the shim's answer; None with `problem` saying why there is none.

        `useless` is whether that concerns the shim as a whole, not this task alone.
        """
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._ask)
            nursery.start_soon(self._watch_shim)
            if self._init is not None:
                nursery.start_soon(self._watch_init, self._init)
        return self._answer

    def _conclude(self, problem: str, *, useless: bool) -> None:
        if not self.problem:
            self.problem, self.useless = problem, useless
        self._scope.cancel()

    async def _ask(self) -> None:
        for last in (False, True):
            try:
                self._answer = await self._service.wait(self._ref.id)
                self._scope.cancel()
                return
            except NotFound:
                self._conclude("its shim does not know it any more", useless=False)
                return
            except ConnectionLost as error:
                # Of a dying shim the sockets go first; its death says more than this error.
                with trio.move_on_after(_DEATH_SECONDS):
                    await wait_dead(self._shim)
                    await trio.sleep_forever()
                if last:
                    self._conclude(str(error), useless=True)
            except NodedError as error:
                self._conclude(str(error), useless=False)
                return

    async def _watch_shim(self) -> None:
        await wait_dead(self._shim)
        # Its answer may have come together with its death.
        await trio.lowlevel.checkpoint()
        self._conclude(f"its shim (pid {self._shim.pid}) died", useless=True)

    async def _watch_init(self, init: ProcessIdentity) -> None:
        await wait_dead(init)
        await trio.sleep(0 if is_stopped(self._shim) else _TELL_SECONDS)
        problem = f"its shim (pid {self._shim.pid}) did not tell the end of process {init.pid}"
        self._conclude(problem, useless=True)


async def end_shim(shim: ProcessIdentity) -> None:
    """Kill a shim and collect it. Idempotent. Raises: Unavailable when it does not die."""
    kill_identity(shim)
    await wait_gone([shim], timeout_seconds=_KILL_SECONDS)
    reap(shim.pid)


def _unknown(message: str) -> Exit:
    return Exit(_UNKNOWN_CODE, time.time_ns(), message=message)
