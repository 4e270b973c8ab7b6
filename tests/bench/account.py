"""CPU time and memory of everything that one system under test runs, by a cgroup of its own.

A daemon is started in NAME/daemon and its pods get the cgroup parent NAME/pods, so the counter of
NAME holds the daemon, its helpers, the runtimes, the CNI plugins and the pods, dead ones included.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Account:
    """The cgroup `name` in the hierarchy that counts CPU time (cpuacct of v1, or v2)."""

    def __init__(self, name: str) -> None:
        self.name = name
        mount, self._unified = _hierarchy()
        self._home = mount / _own_cgroup(self._unified).lstrip("/")
        self._directory = mount / name
        self._daemon = self._directory / "daemon"
        self._daemon.mkdir(parents=True, exist_ok=True)

    @property
    def pods(self) -> str:
        """Cgroup parent for pods."""
        return f"/{self.name}/pods"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within it, this process is in the daemon's cgroup: what it starts is counted."""
        (self._daemon / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def cpu_seconds(self) -> float:
        """CPU time of all processes so far."""
        if self._unified:
            fields = (self._directory / "cpu.stat").read_text().split()
            return int(fields[fields.index("usage_usec") + 1]) / 1e6
        return int((self._directory / "cpuacct.usage").read_text()) / 1e9

    def pids(self) -> set[int]:
        """All processes that run now."""
        found: set[int] = set()
        for path in self._directory.rglob("cgroup.procs"):
            with suppress(OSError):
                found |= {int(pid) for pid in path.read_text().split()}
        return found

    def close(self) -> None:
        """Remove the cgroup; its processes must have been told to end."""
        deadline = time.monotonic() + 5
        while self._directory.exists() and time.monotonic() < deadline:
            for path in sorted((p for p in self._directory.rglob("*") if p.is_dir()), reverse=True):
                with suppress(OSError):
                    path.rmdir()
            with suppress(OSError):
                self._directory.rmdir()
                return
            time.sleep(0.05)  # the kernel tells nobody when the last member is gone


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process, 0 when it is gone."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.split("\nPss:", 1)[1].split()[0]) * 1024
    return 0


def rss_bytes(pid: int) -> int:
    """Resident set size of a process, 0 when it is gone."""
    with suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.split("\nRss:", 1)[1].split()[0]) * 1024
    return 0


def program_of(pid: int) -> str:
    """Base name of the program that a process runs, "" when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


def _hierarchy() -> tuple[Path, bool]:
    unified = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup" and "cpuacct" in options.split(","):
            return Path(before.split(" ")[4]), False
        if kind == "cgroup2":
            unified = Path(before.split(" ")[4])
    assert unified is not None, "no cgroup hierarchy counts CPU time here"
    return unified, True


def _own_cgroup(unified: bool) -> str:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if (not controllers) if unified else ("cpuacct" in controllers.split(",")):
            return path
    raise AssertionError("this process is in no cgroup that counts CPU time")
