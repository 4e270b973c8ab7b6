"""Reading the accounting files of cgroups, fast: one open and one read each, no objects for paths.

Everything here blocks: a file costs about 10 us, memory.stat more, and the kernel may have to gather
counters from all CPUs first. Use it from a worker thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from noded.host import cgroup_detail, cgroup_names, cgroup_stats
from noded.host.cgroup_detail import CgroupDetail
from noded.host.cgroup_hierarchies import Hierarchy, read_hierarchies
from noded.host.cgroup_stats import CgroupUsage
from noded.model.host import CgroupMode

_READ_BYTES = 65536
_DEEPEST = 16  # cgroups below a container's own; those of a systemd inside have about 5


class CgroupSampler:
    """Reads what cgroups use.

    Args:
        hierarchies: None = those mounted now.
    """

    def __init__(self, mode: CgroupMode, hierarchies: Iterable[Hierarchy] | None = None) -> None:
        self._v2 = mode is CgroupMode.V2
        self._roots: dict[str, str] = {}
        for hierarchy in read_hierarchies() if hierarchies is None else hierarchies:
            for controller in ("",) if hierarchy.v2 else hierarchy.controllers:
                self._roots[controller] = str(hierarchy.mount_point)
        self._page_sizes = _page_sizes()

    def usage(self, place: str) -> CgroupUsage | None:
        """What the cgroup uses; None when it is gone."""
        now, monotonic = time.time_ns(), time.monotonic_ns()
        read = _Files(self._roots, place).read
        if self._v2:
            return cgroup_stats.usage_v2(read, now, monotonic)
        return cgroup_stats.usage_v1(read, now, monotonic)

    def detail(self, place: str) -> CgroupDetail | None:
        """Everything that metrics tell of the cgroup; None when it is gone."""
        now, monotonic = time.time_ns(), time.monotonic_ns()
        read = _Files(self._roots, place, keep=True).read
        if self._v2:
            usage = cgroup_stats.usage_v2(read, now, monotonic)
            if usage is None:
                return None
            return cgroup_detail.detail_v2(read, usage, self.pids(place), self._page_sizes)
        usage = cgroup_stats.usage_v1(read, now, monotonic)
        if usage is None:
            return None
        return cgroup_detail.detail_v1(read, usage, self.pids(place), self._page_sizes)

    def pids(self, place: str) -> tuple[int, ...]:
        """The processes in the cgroup and below it; empty when it is gone."""
        for controller in ("",) if self._v2 else ("pids", "memory", "cpuacct", ""):
            root = self._roots.get(controller)
            if root is not None:
                found: list[bytes] = []
                _collect_pids(_path(root, place), found, _DEEPEST)
                return cgroup_detail.sorted_pids(b"\n".join(found))
        return ()


class _Files:
    """The files of one cgroup. `keep` remembers contents, for a second look at the same moment."""

    def __init__(self, roots: dict[str, str], place: str, *, keep: bool = False) -> None:
        self._roots = roots
        self._place = cgroup_names.checked_place(place)
        self._kept: dict[tuple[str, str], bytes | None] | None = {} if keep else None

    def read(self, controller: str, name: str) -> bytes | None:
        root = self._roots.get(controller)
        if root is None:
            return None
        if self._kept is None:
            return _content(f"{root}{self._place}/{name}")
        key = controller, name
        if key not in self._kept:
            self._kept[key] = _content(f"{root}{self._place}/{name}")
        return self._kept[key]


def _path(root: str, place: str) -> str:
    return root + cgroup_names.checked_place(place)


def _content(path: str) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, _READ_BYTES)
    except OSError:  # ENODEV: removed since it was opened; EOPNOTSUPP: PSI is off
        return None
    finally:
        os.close(fd)
    return data


def _collect_pids(directory: str, found: list[bytes], deeper: int) -> None:
    """Unlike other files cgroup.procs can be longer than one read gives."""
    try:
        fd = os.open(f"{directory}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        parts = []
        while part := os.read(fd, _READ_BYTES):
            parts.append(part)
        found.append(b"".join(parts))
    except OSError:  # removed meanwhile, or a threaded cgroup, whose processes are its domain's
        pass
    finally:
        os.close(fd)
    try:
        # A directory of cgroupfs has as many links as children, and two more.
        if deeper and os.stat(directory).st_nlink > 2:
            with os.scandir(directory) as listing:
                children = [entry.path for entry in listing if entry.is_dir(follow_symlinks=False)]
            for child in children:
                _collect_pids(child, found, deeper - 1)
    except OSError:
        return


def _page_sizes() -> tuple[str, ...]:
    try:
        names = os.listdir(Path("/sys/kernel/mm/hugepages"))
    except OSError:
        return ()
    sizes = (name.removeprefix("hugepages-").removesuffix("kB") for name in names)
    return tuple(cgroup_detail.page_size_name(size) for size in sorted(int(s) for s in sizes if s.isdigit()))
