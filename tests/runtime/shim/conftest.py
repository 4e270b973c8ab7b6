"""The real runc shim in a scratch directory, and a check that nothing is left of its tasks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from noded.host.mounts import mounts_below
from noded.model.runtime import SandboxRef, SandboxStart, TaskCreate
from noded.runtimes.shim_quirks import ShimOptions, ShimQuirks
from noded.runtimes.shim_record import read_shim
from noded.runtimes.shim_runtime import ShimRuntime
from tests.support.bundles import (
    Bundles,
    leaves_no_process_or_descriptor,
    need_programs,
    rootfs,
    scratch_host,
)

__all__ = ["driver", "rootfs"]

RUNC_SHIM = ShimQuirks(
    program="containerd-shim-runc-v2", package="containerd", options="runc", oci_runtime="runc"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)


@dataclass(kw_only=True)
class Driver(Bundles):
    """One handler under test with one pod sandbox; makes bundles, and knows what it made."""

    quirks: ShimQuirks = RUNC_SHIM
    options: ShimOptions = ShimOptions()
    sockets: set[Path] = field(default_factory=set)
    _runtime: ShimRuntime | None = None

    @property
    def sandbox_ref(self) -> SandboxRef:
        return self.sandbox_of(f"/{self.prefix}/{self.prefix}")

    def task(self, *args: str, **options: Any) -> TaskCreate:
        task = super().task(*args, **options)
        (task.ref.bundle / "rootfs").mkdir()
        return task

    @property
    def runtime(self) -> ShimRuntime:
        if self._runtime is None:
            self._runtime = ShimRuntime("shim", self.quirks, self.options, self.host)
        return self._runtime

    def forget(self) -> None:
        """As after a restart of the daemon: nothing is known but what is on disk."""
        self._runtime = None

    async def start(self, infra: tuple[str, ...] = ()):
        spec = self.spec(*infra, cgroup=self.sandbox_ref.cgroup) if infra else None
        start = SandboxStart(self.sandbox_ref, spec, monitor_cgroup=f"/{self.prefix}/monitors")
        sandbox = await self.runtime.start_sandbox(start)
        self.sockets.add(Path(self.shim.address.removeprefix("unix://")))
        return sandbox

    async def attach(self):
        return await self.runtime.attach_sandbox(self.sandbox_ref)

    async def destroy(self) -> None:
        await self.runtime.destroy_sandbox(self.sandbox_ref)

    @property
    def shim(self):
        return read_shim(self.sandbox_ref.bundle)

    async def run(self, sandbox: Any, *args: str, **options: Any) -> TaskCreate:
        """Create and start a task."""
        task = self.task(*args, **options)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        return task

    def task_traces(self) -> list[str]:
        """What is left of the containers outside what the engine made."""
        left = []
        for ref in self.refs:
            left += [str(path) for path in ref.bundle.iterdir() if path.name not in ("config.json", "rootfs")]
            left += [str(path) for path in self.host.layout.state.glob(f"runtimes/*/*/{ref.id}")]
        return left + [ref.cgroup for ref in self.refs if self.cgroups.exists(self.cgroups.place(ref.cgroup))]

    def traces(self) -> list[str]:
        """What is left of the pod outside what the engine made."""
        left = self.task_traces()
        pod = self.host.layout.pod(self.prefix)
        left += [str(path) for path in pod.rglob("*") if path.name not in ("infra", "rootfs")]
        left += [str(path) for path in self.host.layout.state.glob(f"runtimes/*/*/{self.prefix}*")]
        left += [str(path) for path in self.sockets if path.exists()]
        left += [str(path) for path in mounts_below(self.host.layout.state)]
        left += [f"process {pid}" for pid in self.pids_mentioning(self.prefix)]
        left += [f"in cgroup: {pid}" for pid in self.cgroups.procs(f"/{self.prefix}")]
        return left


@pytest.fixture
def driver(tmp_path: Path, rootfs: Path, subreaper: None) -> Iterator[Driver]:
    """The runc shim; at the end no process, descriptor, cgroup, mount or file of its pod may be left."""
    need_programs("containerd-shim-runc-v2", "runc")
    made = Driver(host=scratch_host(tmp_path), rootfs=rootfs, prefix=f"nodedtest{secrets.token_hex(4)}")
    try:
        with leaves_no_process_or_descriptor():
            yield made
            assert made.traces() == []
    finally:
        made.remove_cgroups()
        for path in made.sockets:
            path.unlink(missing_ok=True)
