"""A real runtime handler in a scratch directory, and a check that nothing is left of its tasks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from noded_runc.plugin import CRUN, RUNC

from noded.api import OciOptions, OciQuirks, OciRuntime
from noded.model.runtime import SandboxRef, TaskCreate, TaskRef
from tests.support.bundles import (
    Bundles,
    leaves_no_process_or_descriptor,
    need_programs,
    rootfs,
    scratch_host,
)

__all__ = ["driver", "rootfs"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)


@dataclass(kw_only=True)
class Driver(Bundles):
    """One handler under test; makes bundles and drivers, and knows what it made."""

    quirks: OciQuirks

    @property
    def sandbox_ref(self) -> SandboxRef:
        return self.sandbox_of(f"/{self.prefix}")

    def task(self, *args: str, **options: Any) -> TaskCreate:
        return super().task(*args, monitor_cgroup=f"/{self.prefix}/monitors", **options)

    def runtime(self, **options: Any) -> OciRuntime:
        return OciRuntime(self.quirks.program, self.quirks, OciOptions(**options), self.host)

    async def sandbox(self, **options: Any):
        return await self.runtime(**options).attach_sandbox(self.sandbox_ref)

    def traces(self, ref: TaskRef) -> list[str]:
        """What is left of a task outside what the engine made."""
        left = [str(path) for path in ref.bundle.iterdir() if path.name != "config.json"]
        left += [str(path) for path in self.host.layout.state.glob(f"runtimes/*/{ref.id}")]
        left += [str(path) for path in self.host.layout.exits.glob(f"{ref.id}*")]
        if self.cgroups.exists(self.cgroups.place(ref.cgroup)):
            left.append(ref.cgroup)
        left += [f"process {pid}" for pid in self.pids_mentioning(ref.id)]
        return left


@pytest.fixture(params=[RUNC, CRUN], ids=lambda quirks: quirks.program)
def driver(request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path, subreaper: None) -> Iterator[Driver]:
    """A handler; at the end no process, descriptor, cgroup or child of its tasks may be left."""
    need_programs(request.param.program, "conmon")
    made = Driver(
        quirks=request.param,
        host=scratch_host(tmp_path),
        rootfs=rootfs,
        prefix=f"noded-test-{secrets.token_hex(4)}",
    )
    try:
        with leaves_no_process_or_descriptor():
            yield made
            assert [trace for ref in made.refs for trace in made.traces(ref)] == []
    finally:
        made.remove_cgroups()
