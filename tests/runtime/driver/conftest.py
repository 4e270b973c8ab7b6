"""A real runtime handler in a scratch directory, and a check that nothing is left of its tasks."""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
from noded_runc.plugin import CRUN, RUNC

from noded.api import OciOptions, OciQuirks, OciRuntime
from noded.config import Config
from noded.host.cgroups import Cgroups
from noded.host.facts import collect
from noded.host.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from noded.host.processes import become_subreaper, children_of, start_time
from noded.model.paths import Layout
from noded.model.pod import PodConfig, SandboxKey
from noded.model.runtime import RuntimeHost, SandboxRef, TaskCreate, TaskRef

APPLETS = (
    "cat", "dd", "echo", "false", "head", "id", "ls", "mkfifo", "setsid", "sh", "sleep", "stty", "true",
    "yes",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)


@dataclass
class Driver:
    """One handler under test; makes bundles and drivers, and knows what it made."""

    quirks: OciQuirks
    host: RuntimeHost
    rootfs: Path
    prefix: str
    refs: list[TaskRef] = field(default_factory=list)

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.host.facts.cgroup_mode, self.host.facts.cgroup_driver)

    @property
    def sandbox_ref(self) -> SandboxRef:
        config = PodConfig(SandboxKey("default", "web", "u1", 0))
        bundle = self.host.layout.infra_bundle(self.prefix)
        return SandboxRef(self.prefix, config, bundle, f"/{self.prefix}")

    def runtime(self, **options: Any) -> OciRuntime:
        return OciRuntime(self.quirks.program, self.quirks, OciOptions(**options), self.host)

    async def sandbox(self, **options: Any):
        return await self.runtime(**options).attach_sandbox(self.sandbox_ref)

    def spec(
        self, *args: str, memory_bytes: int = 0, terminal: bool = False, cgroup: str = ""
    ) -> dict[str, Any]:
        return {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": terminal,
                "user": {"uid": 0, "gid": 0},
                "args": list(args),
                "env": ["PATH=/bin"],
                "cwd": "/",
                "oomScoreAdj": max(0, self.host.facts.oom_score_adj),
            },
            "root": {"path": str(self.rootfs), "readonly": True},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
                {"destination": "/dev/pts", "type": "devpts", "source": "devpts"},
            ],
            "linux": {
                "cgroupsPath": cgroup,
                "namespaces": [{"type": kind} for kind in ("pid", "mount", "uts", "ipc", "network")],
                "resources": {"memory": {"limit": memory_bytes, "swap": memory_bytes}}
                if memory_bytes
                else {},
            },
        }

    def task(self, *args: str, terminal: bool = False, memory_bytes: int = 0, **create: Any) -> TaskCreate:
        """Write a bundle whose container runs `args`."""
        task_id = f"{self.prefix}{secrets.token_hex(8)}"
        bundle = self.host.layout.bundle(task_id)
        bundle.mkdir(parents=True)
        ref = TaskRef(task_id, self.prefix, bundle, f"/{self.prefix}/{task_id}")
        spec = self.spec(*args, terminal=terminal, memory_bytes=memory_bytes, cgroup=ref.cgroup)
        (bundle / "config.json").write_text(json.dumps(spec))
        self.refs.append(ref)
        log = bundle.parent / f"{task_id}.log"
        return TaskCreate(
            ref=ref, log_path=str(log), terminal=terminal, monitor_cgroup=f"/{self.prefix}/monitors", **create
        )

    def process(self, *args: str) -> dict[str, Any]:
        return {"user": {"uid": 0, "gid": 0}, "args": list(args), "env": ["PATH=/bin"], "cwd": "/"}

    def log_lines(self, task: TaskCreate) -> list[str]:
        """The container's output; a P entry goes on in the next one."""
        text = ""
        for line in Path(task.log_path).read_text().splitlines():
            _, _, tag, content = line.split(" ", 3)
            text += content + ("\n" if tag == "F" else "")
        return text.splitlines()

    async def wait_log(self, task: TaskCreate, text: str) -> None:
        """Return when the container has written `text`."""
        log = Path(task.log_path)
        inotify = Inotify()
        try:
            inotify.watch(log.parent, IN_MODIFY | IN_CREATE | IN_MOVED_TO)
            with trio.fail_after(10):
                while not (log.exists() and text in log.read_text()):  # noqa: ASYNC240
                    await inotify.read()
        finally:
            inotify.close()

    def pids_mentioning(self, text: str) -> list[int]:
        """Processes of the host with `text` in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if text.encode() in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def traces(self, ref: TaskRef) -> list[str]:
        """What is left of a task outside what the engine made."""
        left = [str(path) for path in ref.bundle.iterdir() if path.name != "config.json"]
        left += [str(path) for path in self.host.layout.state.glob(f"runtimes/*/{ref.id}")]
        left += [str(path) for path in self.host.layout.exits.glob(f"{ref.id}*")]
        if self.cgroups.exists(self.cgroups.place(ref.cgroup)):
            left.append(ref.cgroup)
        left += [f"process {pid}" for pid in self.pids_mentioning(ref.id)]
        return left


def ticks_since_boot() -> int:
    """The present in the unit of a process's start time, proc_pid_stat(5)."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK"))


def children() -> set[int]:
    """Own children, zombies included."""
    return children_of(os.getpid())


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    root = tmp_path_factory.mktemp("rootfs")
    for name in ("bin", "proc", "dev", "tmp"):
        (root / name).mkdir()
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs the package busybox-static")
    shutil.copy(busybox, root / "bin/busybox")
    for applet in APPLETS:
        (root / "bin" / applet).symlink_to("busybox")
    return root


@pytest.fixture(params=[RUNC, CRUN], ids=lambda quirks: quirks.program)
def driver(request: pytest.FixtureRequest, tmp_path: Path, rootfs: Path) -> Iterator[Driver]:
    """A handler; at the end no process, descriptor, cgroup or child of its tasks may be left."""
    for program in (request.param.program, "conmon"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")
    become_subreaper()
    layout = Layout(root=tmp_path / "root", state=tmp_path / "state")
    made = Driver(
        request.param, RuntimeHost(collect(Config()), layout), rootfs, f"noded-test-{secrets.token_hex(4)}"
    )
    gc.collect()  # what an earlier test left to the collector must not go while this one counts
    fds, began = len(os.listdir("/proc/self/fd")), ticks_since_boot()
    yield made
    try:
        assert [trace for ref in made.refs for trace in made.traces(ref)] == []
        assert len(os.listdir("/proc/self/fd")) <= fds
        # A subreaper also inherits what daemons of earlier tests have left: older than this test.
        assert {pid for pid in children() if (start_time(pid) or 0) >= began} == set()
    finally:
        made.cgroups.kill(f"/{made.prefix}")
        made.cgroups.remove(f"/{made.prefix}")
