"""Bundles of tasks for tests that drive a runtime without the engine, and what tells whether any is left."""

from __future__ import annotations

import gc
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from noded.config import Config
from noded.host.cgroups import Cgroups
from noded.host.facts import collect
from noded.host.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify
from noded.host.processes import children_of, start_time
from noded.model.paths import Layout
from noded.model.pod import PodConfig, SandboxKey
from noded.model.runtime import RuntimeHost, SandboxRef, TaskCreate, TaskRef

APPLETS = (
    "cat", "dd", "echo", "false", "head", "id", "ls", "mkfifo", "setsid", "sh", "sleep", "stty", "true",
    "yes",
)  # fmt: skip


@dataclass(kw_only=True)
class Bundles:
    """Makes bundles in a scratch directory, and knows which. `prefix` begins the names of all of them."""

    host: RuntimeHost
    rootfs: Path
    prefix: str
    refs: list[TaskRef] = field(default_factory=list)

    @property
    def cgroups(self) -> Cgroups:
        return Cgroups(self.host.facts.cgroup_mode, self.host.facts.cgroup_driver)

    def sandbox_of(self, cgroup: str) -> SandboxRef:
        """The one pod of these tasks."""
        config = PodConfig(SandboxKey("default", "web", "u1", 0))
        return SandboxRef(self.prefix, config, self.host.layout.infra_bundle(self.prefix), cgroup)

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
        return TaskCreate(ref=ref, log_path=str(log), terminal=terminal, **create)

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
                while not (log.exists() and text in log.read_text()):  # noqa: ASYNC240 - small files on a local disk
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

    def remove_cgroups(self) -> None:
        """Whatever a failed test has left in them."""
        self.cgroups.kill(f"/{self.prefix}")
        self.cgroups.remove(f"/{self.prefix}")


def scratch_host(directory: Path) -> RuntimeHost:
    """This host, with the directories of a daemon below `directory`. Monitors need `subreaper`, too."""
    return RuntimeHost(collect(Config()), Layout(root=directory / "root", state=directory / "state"))


@contextmanager
def leaves_no_process_or_descriptor() -> Iterator[None]:
    """Compare this process's descriptors and children, zombies included, before and after."""
    gc.collect()  # what an earlier test left to the collector must not go while this one counts
    descriptors, began = len(os.listdir("/proc/self/fd")), _ticks_since_boot()
    yield
    assert len(os.listdir("/proc/self/fd")) <= descriptors
    # A subreaper also inherits what daemons of earlier tests have left: older than this test.
    newer = [pid for pid in children_of(os.getpid()) if (start_time(pid) or 0) >= began]
    assert [Path(f"/proc/{pid}/stat").read_text() for pid in newer] == []


def _ticks_since_boot() -> int:
    """The present in the unit of a process's start time, proc_pid_stat(5)."""
    return int(float(Path("/proc/uptime").read_text().split()[0]) * os.sysconf("SC_CLK_TCK"))


def need_programs(*names: str) -> None:
    """Skip the test where one is missing."""
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"needs the program {name}")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with busybox, for bundles of any runtime."""
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
