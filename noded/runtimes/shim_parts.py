"""What one handler's shim runtime and its sandboxes share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

import trio

from noded.host.cgroups import Cgroups
from noded.model.paths import Layout
from noded.model.runtime import SandboxRef, TaskRef
from noded.runtimes.monitor import Exits
from noded.runtimes.oci_sandbox import infra_task
from noded.runtimes.shim_bootstrap import Bootstrap
from noded.runtimes.shim_pumps import Pumps
from noded.runtimes.shim_quirks import ShimQuirks
from noded.runtimes.shim_record import ShimRecord
from noded.runtimes.shim_service import TaskService
from noded.runtimes.ttrpc_client import TtrpcClient
from noded.wire.ttrpc_task import SERVICES, Any


@dataclass(frozen=True, slots=True)
class ShimParts:
    """State is only what a restart may lose: running pumps, and locks.

    Args:
        exits: of the OCI driver, for its ways to kill a task's processes and to tell an OOM kill.
        task_options: what Create tells the shim, None = nothing.
    """

    quirks: ShimQuirks
    layout: Layout
    cgroups: Cgroups
    exits: Exits
    bootstrap: Bootstrap
    pumps: Pumps
    task_options: Any | None
    _locks: WeakValueDictionary[str, trio.Lock] = field(default_factory=WeakValueDictionary)
    _clients: WeakValueDictionary[str, TtrpcClient] = field(default_factory=WeakValueDictionary)

    def lock(self, sandbox_id: str) -> trio.Lock:
        """Held while tasks of a sandbox are removed, and while its shim is: one after the other."""
        lock = self._locks.get(sandbox_id)
        if lock is None:
            lock = self._locks[sandbox_id] = trio.Lock()
        return lock

    def service(self, sandbox_id: str, shim: ShimRecord) -> TaskService:
        client = self._clients.get(shim.address)
        if client is None:
            # Shared by all calls that are on the way, whose number it limits.
            peer = f"the shim (pid {shim.process.pid}) of pod sandbox {sandbox_id[:12]}"
            client = self._clients[shim.address] = TtrpcClient(shim.address, peer)
        return TaskService(client, SERVICES[shim.version])

    def members(self, ref: TaskRef) -> set[int]:
        """Pids of a task's cgroup."""
        return self.cgroups.procs(self.cgroups.place(ref.cgroup)) if ref.cgroup else set()

    def sandbox_task(self, ref: SandboxRef) -> TaskRef:
        """Name the sandbox container."""
        return infra_task(ref)

    def neighbour(self, ref: SandboxRef) -> Path:
        """Where shims look for a sandbox's bundle: beside it, by its id."""
        return ref.bundle.parent / ref.id
