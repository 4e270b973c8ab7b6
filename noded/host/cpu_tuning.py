"""Files of the kernel that tune CPUs: written for a container, and given their old value back after it.

What is to be undone is in a journal before anything is written, so whoever finds the journal can undo it,
also after a crash. All of it is gone after a reboot, and so is the journal, which must be on a tmpfs.
Spec: admin-guide/pm/cpuidle.rst, cpufreq.rst, core-api/irq/irq-affinity.rst of the kernel.
"""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path

import structlog

from noded.errors import FailedPrecondition
from noded.host import cpu_partition, files, interrupts, irqbalance
from noded.model.cpus import format_cpus, parse_cpus
from noded.spec.cpu_tuning import FileWrite, TuningPlan

log = structlog.get_logger(__name__)

_INTERRUPTS = "proc/irq"
_MASK = f"{_INTERRUPTS}/default_smp_affinity"
_POSSIBLE = "sys/devices/system/cpu/possible"
_IRQBALANCE = "run/irqbalance"
_GONE = (errno.ENOENT, errno.ENODEV)


class CpuTuner:
    """Applies plans one at a time. All methods block.

    Args:
        root: where /proc and /sys are.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._lock = threading.Lock()  # the mask of interrupts belongs to all containers

    def apply(self, plan: TuningPlan, journal: Path) -> None:
        """Carry out a plan. What it wrote is still there when it raises: call `undo`.

        Raises: FailedPrecondition naming the annotation and the file that the node lacks or refuses.
        """
        with self._lock:
            old = {write.path: self._current(write) for write in plan.writes}
            quiet = self._served(plan.quiet_cpus)
            others = self._mask() - quiet if quiet else frozenset()
            moved = interrupts.to_move(self._root / _INTERRUPTS, quiet, others) if quiet else {}
            restore = [
                {"path": write.path, "old": old[write.path], "new": write.value}
                for write in plan.writes
                if write.restore
            ]
            cgroup = self._root / plan.isolated_cgroup
            taken = cpu_partition.to_take(cgroup, plan.isolated_cpus) if plan.isolated_cgroup else {}
            entry = {
                "restore": restore,
                "quiet_cpus": format_cpus(quiet),
                "interrupts": {
                    number: [format_cpus(one.old), format_cpus(one.new)] for number, one in moved.items()
                },
                "isolated_cgroup": plan.isolated_cgroup,
                "taken_cpus": {directory: format_cpus(cpus) for directory, cpus in taken.items()},
            }
            files.publish(journal, json.dumps(entry).encode(), 0o600, durable=False)
            for write in plan.writes:
                self._write(write)
            if quiet:
                mask = interrupts.format_mask(others)
                self._write(FileWrite(_MASK, mask, "irq-load-balancing"))
                irqbalance.ban(self._root / _IRQBALANCE, self._quiet())
                interrupts.move(self._root / _INTERRUPTS, moved)
            if plan.isolated_cgroup:
                cpu_partition.isolate(cgroup, plan.isolated_cpus)

    def undo(self, journal: Path) -> None:
        """Give files their old values back, unless somebody else has changed them since. Idempotent.

        A file that refuses is logged: it is better told than in the way of the container's removal.
        """
        with self._lock:
            try:
                entry = json.loads(journal.read_bytes())
            except FileNotFoundError:
                return
            if entry.get("isolated_cgroup"):
                taken = {
                    directory: parse_cpus(cpus, "taken_cpus")
                    for directory, cpus in entry["taken_cpus"].items()
                }
                cpu_partition.join(self._root / entry["isolated_cgroup"], taken)
            for one in entry["restore"]:
                self._restore(one["path"], one["old"], one["new"])
            quiet = parse_cpus(entry["quiet_cpus"], "quiet_cpus")
            if quiet:
                try:
                    (self._root / _MASK).write_text(interrupts.format_mask(self._mask() | quiet))
                except OSError as error:
                    log.error("CPUs serve no interrupts still", cpus=format_cpus(quiet), error=str(error))
                irqbalance.allow(self._root / _IRQBALANCE, quiet, self._quiet())
                moved = {
                    number: interrupts.Moved(*(parse_cpus(cpus, "interrupts") for cpus in both))
                    for number, both in entry.get("interrupts", {}).items()
                }
                interrupts.move_back(self._root / _INTERRUPTS, moved)
            journal.unlink(missing_ok=True)

    def _current(self, write: FileWrite) -> str:
        try:
            value = (self._root / write.path).read_text().strip()
            choices = (self._root / write.choices).read_text().split() if write.choices else [write.value]
        except OSError as error:
            raise FailedPrecondition(
                f"annotation {write.annotation}: this node cannot do that, /{write.path}: {error.strerror}"
            ) from None
        if write.value not in choices:
            raise FailedPrecondition(
                f"annotation {write.annotation}: this node has no {write.value!r}, only {', '.join(choices)}"
            )
        return value

    def _write(self, write: FileWrite) -> None:
        try:
            (self._root / write.path).write_text(write.value)
        except OSError as error:
            raise FailedPrecondition(
                f"annotation {write.annotation}: the kernel refuses {write.value!r} for /{write.path}: "
                f"{error.strerror}"
            ) from None

    def _restore(self, path: str, old: str, new: str) -> None:
        file = self._root / path
        try:
            if file.read_text().strip() == new:
                file.write_text(old)
        except OSError as error:
            if error.errno not in _GONE:  # a CPU may have been unplugged
                log.error("a CPU keeps a container's setting", path=f"/{path}", old=old, error=str(error))

    def _served(self, cpus: frozenset[int]) -> frozenset[int]:
        """Those of the CPUs that serve interrupts now. Raises: FailedPrecondition."""
        if not cpus:
            return cpus
        try:
            serving = self._mask()
        except OSError as error:
            raise FailedPrecondition(
                f"annotation irq-load-balancing: this node cannot do that, /{_MASK}: {error.strerror}"
            ) from None
        if serving <= cpus:
            raise FailedPrecondition(
                f"annotation irq-load-balancing: no CPU but {format_cpus(serving)} serves interrupts"
            )
        return cpus & serving

    def _quiet(self) -> frozenset[int]:
        """The CPUs that get no interrupts of new devices, by noded's doing or that of others."""
        possible = (self._root / _POSSIBLE).read_text() if (self._root / _POSSIBLE).exists() else ""
        return parse_cpus(possible, _POSSIBLE) - self._mask()

    def _mask(self) -> frozenset[int]:
        return interrupts.parse_mask((self._root / _MASK).read_text())
