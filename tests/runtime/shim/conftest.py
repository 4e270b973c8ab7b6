"""The real runc shim in a scratch directory, and a check that nothing is left of its tasks."""

from __future__ import annotations

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

from noded.config import Config
from noded.host.cgroups import Cgroups
from noded.host.facts import collect
from noded.host.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from noded.host.mounts import mounts_below
from noded.host.processes import become_subreaper, children_of
from noded.model.paths import Layout
from noded.model.pod import PodConfig, SandboxKey
from noded.model.runtime import RuntimeHost, SandboxRef, SandboxStart, TaskCreate, TaskRef
from noded.runtimes.shim_quirks import ShimOptions, ShimQuirks
from noded.runtimes.shim_record import read_shim
from noded.runtimes.shim_runtime import ShimRuntime

APPLETS = ("cat", "dd", "echo", "false", "id", "ls", "setsid", "sh", "sleep", "stty", "true", "yes")

RUNC_SHIM = ShimQuirks(
    program="containerd-shim-runc-v2", package="containerd", options="runc", oci_runtime="runc"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.root)


@dataclass
class Driver:
    """One handler under test with one pod sandbox; makes bundles, and knows what it made."""

    host: RuntimeHost
    rootfs: Path
    prefix: str
    quirks: ShimQuirks = RUNC_SHIM
    options: ShimOptions = ShimOptions()
    refs: list[TaskRef] = field(default_factory=list)
    sockets: set[Path] = field(default_factory=set)
    _runtime: ShimRuntime | None = None

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.host.facts.cgroup_mode, self.host.facts.cgroup_driver)

    @property
    def sandbox_ref(self) -> SandboxRef:
        config = PodConfig(SandboxKey("default", "web", "u1", 0))
        bundle = self.host.layout.infra_bundle(self.prefix)
        return SandboxRef(self.prefix, config, bundle, f"/{self.prefix}/{self.prefix}")

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

    def spec(
        self, *args: str, memory_bytes: int = 0, terminal: bool = False, cgroup: str = ""
    ) -> dict[str, Any]:
        limits = {"memory": {"limit": memory_bytes, "swap": memory_bytes}} if memory_bytes else {}
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
                "resources": limits,
            },
        }

    def task(self, *args: str, terminal: bool = False, memory_bytes: int = 0, **create: Any) -> TaskCreate:
        """Write a bundle whose container runs `args`."""
        task_id = f"{self.prefix}{secrets.token_hex(8)}"
        bundle = self.host.layout.bundle(task_id)
        bundle.mkdir(parents=True)
        (bundle / "rootfs").mkdir()
        ref = TaskRef(task_id, self.prefix, bundle, f"/{self.prefix}/{task_id}")
        spec = self.spec(*args, terminal=terminal, memory_bytes=memory_bytes, cgroup=ref.cgroup)
        (bundle / "config.json").write_text(json.dumps(spec))
        self.refs.append(ref)
        log = bundle.parent / f"{task_id}.log"
        return TaskCreate(ref=ref, log_path=str(log), terminal=terminal, **create)

    async def run(self, sandbox: Any, *args: str, **options: Any) -> TaskCreate:
        """Create and start a task."""
        task = self.task(*args, **options)
        await sandbox.create(task)
        await sandbox.start(task.ref)
        return task

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
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if self.prefix.encode() in (entry / "cmdline").read_bytes():
                        left.append(f"process {entry.name}")
                except OSError:
                    continue
        left += [f"in cgroup: {pid}" for pid in self.cgroups.procs(f"/{self.prefix}")]
        return left


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


def make_driver(tmp_path: Path, rootfs: Path, **options: Any) -> Driver:
    become_subreaper()
    layout = Layout(root=tmp_path / "root", state=tmp_path / "state")
    host = RuntimeHost(collect(Config()), layout)
    return Driver(host, rootfs, f"nodedtest{secrets.token_hex(4)}", **options)


def check_traces(made: Driver, fds: int, before: set[int]) -> None:
    try:
        assert made.traces() == []
        assert len(os.listdir("/proc/self/fd")) == fds
        left = children_of(os.getpid()) - before
        assert [Path(f"/proc/{pid}/stat").read_text() for pid in left] == []
    finally:
        made.cgroups.kill(f"/{made.prefix}")
        made.cgroups.remove(f"/{made.prefix}")
        for path in made.sockets:
            path.unlink(missing_ok=True)


@pytest.fixture
def driver(tmp_path: Path, rootfs: Path) -> Iterator[Driver]:
    """The runc shim; at the end no process, descriptor, cgroup, mount or file of its pod may be left."""
    for program in ("containerd-shim-runc-v2", "runc"):
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")
    made = make_driver(tmp_path, rootfs)
    fds, before = len(os.listdir("/proc/self/fd")), children_of(os.getpid())
    yield made
    check_traces(made, fds, before)
