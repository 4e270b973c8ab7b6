"""The limits of a cgroup as the kernel has them: remembered before a change, put back when it fails."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from noded.host.cgroups import Cgroups

# What a runtime's `update` writes, by controller: v1 files, v2 files.
_FILES: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.weight", "cpu.max", "cpu.idle"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
        "memory.max", "memory.swap.max", "memory.high", "memory.low", "memory.min",
    ),
    "pids": ("pids.max",),
    "hugetlb": ("hugetlb.*.limit_in_bytes", "hugetlb.*.max"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class SavedLimits:
    """The content of limit files at one moment."""

    values: dict[Path, str]

    def restore(self) -> list[str]:
        """Write back what has changed; blocks. Returns: names of files that could not be written.

        The order of some writes matters, as of a memory limit and one on memory and swap together, which
        must not be lower: what fails is tried again as long as others succeed.
        """
        pending = [path for path, text in self.values.items() if _read(path) not in (text, None)]
        while pending:
            failed = [path for path in pending if not _write(path, self.values[path])]
            if len(failed) == len(pending):
                return [path.name for path in failed]
            pending = failed
        return []


def save_limits(cgroups: Cgroups, oci_cgroups_path: str, unified: Iterable[str] = ()) -> SavedLimits:
    """Read the limits of a container's cgroup; blocks. Files that are not there are left out.

    Args:
        unified: names of further files of cgroup v2.
    """
    place = cgroups.place(oci_cgroups_path)
    values: dict[Path, str] = {}
    further = [name for name in unified if "/" not in name]
    for controller in {*_FILES, *(name.partition(".")[0] for name in further)}:
        directory = cgroups.directory(place, controller)
        if directory is None:
            continue
        named = [name for name in further if name.startswith(f"{controller}.")]
        patterns = {*_FILES.get(controller, ()), *named}
        for pattern in patterns:
            for path in directory.glob(pattern):
                text = _read(path)
                if text is not None:
                    values[path] = text
    return SavedLimits(values)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _write(path: Path, text: str) -> bool:
    try:
        path.write_text(f"{text}\n")
    except OSError:
        return False
    return True
