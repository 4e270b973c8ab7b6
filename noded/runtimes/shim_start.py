"""Bringing a pod's shim up, and watching whether it stays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
import trio

from noded.errors import NodedError, Unavailable
from noded.host.files import publish
from noded.host.processes import ProcessIdentity, kill_identity, reap
from noded.host.stalls import wait_stalled
from noded.model.runtime import SandboxRef
from noded.runtimes.killing import wait_dead, wait_gone
from noded.runtimes.records import CONFIG_FILE, read_record
from noded.runtimes.shim_bootstrap import Endpoint, find_shims
from noded.runtimes.shim_fifos import make_fifo
from noded.runtimes.shim_parts import ShimParts
from noded.runtimes.shim_record import SHIM_LOG_FIFO, ShimRecord, read_shim, write_shim
from noded.runtimes.shim_service import TaskService
from noded.runtimes.ttrpc_client import TtrpcClient
from noded.tracing.spans import span
from noded.wire.ttrpc_task import SERVICES

_log = structlog.get_logger(__name__)

START_SECONDS: Final = 30.0  # for a shim to fork itself and to listen; its VM comes later, with Create
_PROGRAM_SECONDS: Final = 20.0
_KILL_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class ShimStart:
    """How to bring one pod's shim up."""

    parts: ShimParts
    sandbox: SandboxRef

    async def start(self, spec: Mapping[str, Any], monitor_cgroup: str) -> ShimRecord:
        """Start the shim, find out which process it is, and move it to its cgroup.

        Args:
            spec: of the sandbox container, or with annotations only: shims read in them which pod
                they serve.

        Raises: Unavailable, FailedPrecondition, DeadlineExceeded with what the shim said.
        Cancellation: safe; `destroy_sandbox` removes what there is.
        """
        ref = self.sandbox
        await trio.to_thread.run_sync(self._make_bundle, spec)
        # Before the shim starts: it waits for a reader of its log.
        self.parts.pumps.shim_log(ref.id, ref.bundle)
        with span("start the shim"):
            endpoint = await self.parts.bootstrap.start(ref.id, ref.bundle, timeout_seconds=START_SECONDS)
            process = await self._identify(endpoint)
        record = ShimRecord(endpoint.address, endpoint.version, process)
        await trio.to_thread.run_sync(write_shim, ref.bundle, record)
        if monitor_cgroup:
            await trio.to_thread.run_sync(self._move, monitor_cgroup, process.pid)
        self.watch(record)
        return record

    def _make_bundle(self, spec: Mapping[str, Any]) -> None:
        bundle = self.sandbox.bundle
        bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        publish(bundle / CONFIG_FILE, json.dumps(spec).encode(), 0o600, durable=False)
        make_fifo(bundle / SHIM_LOG_FIFO)
        neighbour = self.parts.neighbour(self.sandbox)
        if neighbour != bundle and not neighbour.is_symlink():
            neighbour.symlink_to(bundle.name)

    async def _identify(self, endpoint: Endpoint) -> ProcessIdentity:
        peer = f"the shim of pod sandbox {self.sandbox.id[:12]}"
        service = TaskService(TtrpcClient(endpoint.address, peer), SERVICES[endpoint.version])
        answer = await service.connect(self.sandbox.id)
        process = ProcessIdentity.of(answer.shim_pid) if answer.shim_pid > 1 else None
        if process is None or not process.alive():
            found = await trio.to_thread.run_sync(find_shims, self.sandbox.id)
            if len(found) != 1:
                raise Unavailable(
                    f"{peer} says it is process {answer.shim_pid}, which does not exist: "
                    "it cannot be watched, so it is not used"
                )
            process = found[0]
        return process

    def _move(self, place: str, pid: int) -> None:
        self.parts.cgroups.create(place)
        self.parts.cgroups.attach(place, pid)

    def watch(self, shim: ShimRecord) -> None:
        """See to it that the pod ends when its shim does; returns at once."""

        async def work() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_stalled, shim)
                await wait_dead(shim.process)
                nursery.cancel_scope.cancel()
            reap(shim.process.pid)
            await self._shim_died(shim)

        self.parts.pumps.watch(self.sandbox.id, work)

    async def _end_stalled(self, shim: ShimRecord) -> None:
        """Kill a shim that signals keep stopped: whoever asks it anything would wait in vain."""
        await wait_stalled(shim.process, self.parts.exits.stalled_seconds, shim_of=self.sandbox.id)
        _log.warning("shim_stalled", sandbox=self.sandbox.id, pid=shim.process.pid)
        kill_identity(shim.process)

    async def _shim_died(self, shim: ShimRecord) -> None:
        """End the sandbox container: its end tells the engine that the pod is not ready any more.

        Containers are seen to by those who wait for them.
        """
        ref = self.sandbox
        record = read_record(ref.bundle)
        _log.warning("shim_died", sandbox=ref.id, pid=shim.process.pid, sandbox_container=record is not None)
        if record is None or record.monitor != shim.process:
            return
        task = self.parts.sandbox_task(ref)
        try:
            if self.parts.quirks.host_processes:
                await self.parts.exits.kill_everything(task, record.init)
                return
            await self.parts.bootstrap.delete(ref.id, ref.bundle, timeout_seconds=_PROGRAM_SECONDS)
            if record.init is not None:
                kill_identity(record.init)
                await wait_gone([record.init], timeout_seconds=_KILL_SECONDS)
        except NodedError as error:
            _log.warning("sandbox_container_not_ended", sandbox=ref.id, reason=str(error))


def live_shim(ref: SandboxRef) -> ShimRecord | None:
    """Return the sandbox's shim if it lives."""
    shim = read_shim(ref.bundle)
    return shim if shim is not None and shim.process.alive() else None
