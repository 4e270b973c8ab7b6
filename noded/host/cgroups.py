"""Control groups of pods and containers, on cgroup v1, v2 and hybrids of both.

Every method takes a *place*, a path relative to the hierarchies, and acts on all of them. All block,
most for microseconds: use them from a worker thread where noted. Names are made by
`noded.host.cgroup_names`.
"""

from __future__ import annotations

import os
import posixpath
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from noded.errors import FailedPrecondition, NotFound, Unavailable
from noded.host import cgroup_names, cgroup_stats, cgroup_tree, libc, systemd_units
from noded.host.cgroup_hierarchies import Hierarchy, detect, parse_own, read_hierarchies
from noded.host.small_files import read_small, write_small
from noded.model.host import CgroupDriver, CgroupMode

__all__ = ["Cgroups", "detect", "own"]

_KILL_SECONDS = 10.0
_REMOVE_SECONDS = 5.0
_SCOPE_SECONDS = 10.0


def own() -> dict[str, str]:
    """Return the daemon's own places: controller, `name=...` or "" (v2) to place."""
    return parse_own(Path("/proc/self/cgroup").read_text())


class Cgroups:
    """The node's cgroups under one driver.

    Args:
        hierarchies: None = those mounted now.
    """

    def __init__(
        self, mode: CgroupMode, driver: CgroupDriver, hierarchies: Iterable[Hierarchy] | None = None
    ) -> None:
        self.mode = mode
        self.driver = driver
        self._all = tuple(read_hierarchies() if hierarchies is None else hierarchies)
        self._unified = next((h for h in self._all if h.v2), None)
        # The v2 side of a hybrid carries no controllers for containers; only its leftovers matter.
        self._used = tuple(h for h in self._all if h.v2 == (mode is CgroupMode.V2))

    def place(self, oci_cgroups_path: str) -> str:
        """Return where a spec's `linux.cgroupsPath` is, for either driver's form."""
        return cgroup_names.place(oci_cgroups_path)

    def oci_path(self, parent: str, name: str, prefix: str = cgroup_names.PREFIX) -> str:
        """Return `linux.cgroupsPath` for `name` under the client's cgroup parent.

        Raises: InvalidArgument naming linux.cgroup_parent.
        """
        return cgroup_names.oci_path(self.driver, parent, name, prefix)

    def directory(self, place: str, controller: str) -> Path | None:
        """Return the cgroup's directory in the hierarchy of one controller, None without such."""
        for hierarchy in self._used:
            if hierarchy.v2 or controller in hierarchy.controllers:
                return hierarchy.path(cgroup_names.checked_place(place))
        return None

    def exists(self, place: str) -> bool:
        """Tell whether any hierarchy has the cgroup."""
        return any(path.is_dir() for path in self._paths(place))

    def create(self, place: str) -> None:
        """Make the cgroup and its missing parents, ready to take processes. Idempotent.

        v1: in all hierarchies, cpusets copied from the parents. v2: available controllers are
        enabled in all parents. A scope of the systemd driver is left to `attach`: systemd makes it
        together with its first process.

        Raises: FailedPrecondition when a v2 parent holds processes; others by errno. A failure
            leaves pieces that `remove` removes.
        """
        place = cgroup_names.checked_place(place)
        if self._scope(place):
            return
        for hierarchy in self._used:
            directory = hierarchy.mount_point
            for part in place.strip("/").split("/"):
                if hierarchy.v2:
                    cgroup_tree.enable_controllers(directory)
                parent, directory = directory, directory / part
                try:
                    directory.mkdir(mode=0o755, exist_ok=True)
                    if "cpuset" in hierarchy.controllers:
                        cgroup_tree.copy_cpuset(parent, directory)
                except OSError as error:
                    raise libc.os_error(error, f"cannot create the cgroup {directory}") from None

    def attach(self, place: str, pid: int) -> None:
        """Move a process into the cgroup, in every hierarchy; a missing systemd scope is started with it.

        With systemd use it from a worker thread.

        Raises: NotFound when cgroup or process are gone; Unavailable with systemd's words.
        """
        scope = self._scope(place)
        if scope and not self.exists(place) and self._start_scope(place, scope, pid):
            return
        for hierarchy in self._used:
            if scope and not hierarchy.path(place).is_dir():
                continue  # on v1 systemd makes a unit in the hierarchies that it needs only
            path = hierarchy.path(cgroup_names.checked_place(place))
            what = f"cannot move process {pid} into the cgroup {path}"
            try:
                write_small(path / "cgroup.procs", str(pid).encode())
            except FileNotFoundError:
                raise NotFound(f"{what}: no such cgroup") from None
            except ProcessLookupError:
                raise NotFound(f"{what}: no such process") from None
            except OSError as error:
                raise libc.os_error(error, what) from None

    def enter(self, place: str) -> bool:
        """Move the calling thread into the cgroup, so that what it starts is there from the beginning.

        To move another process the kernel waits until nobody can fork, an RCU grace period of some 10 ms; a
        thread that moves itself does not (cgroup_procs_write_start()). Call it in a thread that ends soon.

        As long as it lasts, cgroup.procs names noded itself. So never where somebody may be killing: kubelet
        kills a pod's cgroup when the pod is stopped, and until then every create of it has been given up.

        Returns: False where threads have no cgroups of their own (v2, scopes of systemd) or the cgroup is not
            there, or frozen, as the thread would be; then it may be in some of the hierarchies.
        """
        place = cgroup_names.checked_place(place)
        if self.mode is CgroupMode.V2 or self._scope(place):
            return False
        freezer = self.directory(place, "freezer")
        try:
            if freezer is not None and read_small(freezer / "freezer.state").strip() != b"THAWED":
                return False
            for hierarchy in self._used:
                write_small(hierarchy.path(place) / "tasks", b"0")
        except OSError:
            return False
        return True

    def procs(self, place: str) -> set[int]:
        """Return the pids in the cgroup and all below it; empty when it does not exist."""
        found: set[int] = set()
        for path in self._paths(place):
            for directory in cgroup_tree.tree(path):
                found |= cgroup_tree.read_pids(directory)
        return found

    def kill(self, place: str, *, timeout_seconds: float = _KILL_SECONDS) -> None:
        """Kill every process in the cgroup and below, also those that fork meanwhile; wait for their end.

        Idempotent. Zombies do not count. Use from a worker thread.

        Raises: Unavailable naming pids that do not die in time; FailedPrecondition for noded's own.
        """
        deadline = time.monotonic() + timeout_seconds
        while pids := self.procs(place):
            if os.getpid() in pids:
                raise FailedPrecondition(f"cgroup {place} holds noded itself: it is not killed")
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"cgroup {place} still has processes {cgroup_tree.some(pids)} after SIGKILL"
                )
            if not self._kill_unified(place):
                self._kill_frozen(place)
            cgroup_tree.wait_for_end(pids, deadline)

    def remove(self, place: str, *, timeout_seconds: float = _REMOVE_SECONDS) -> None:
        """Remove the cgroup and all below it from every hierarchy. Missing is success.

        Waits for processes that are about to end; use from a worker thread.

        Raises: Unavailable naming processes that stay.
        """
        deadline = time.monotonic() + timeout_seconds
        if (scope := self._scope(place)) and self.exists(place):
            systemd_units.stop_unit(scope)
        for path in self._paths(place):
            while not cgroup_tree.remove_tree(path):
                pids = self.procs(place)
                if time.monotonic() >= deadline:
                    why = f"processes {cgroup_tree.some(pids)} are in it" if pids else "it stays busy"
                    raise Unavailable(f"cannot remove the cgroup {path}: {why}")
                cgroup_tree.wait_for_end(pids, deadline)

    def oom_kills(self, place: str) -> int | None:
        """Return how many processes of the cgroup the kernel killed for want of memory.

        None when the cgroup is gone or has no memory controller.
        """
        directory = self.directory(place, "memory")
        if directory is None:
            return None
        name = "memory.events" if self.mode is CgroupMode.V2 else "memory.oom_control"
        try:
            return cgroup_stats.oom_kills((directory / name).read_text())
        except OSError:  # ENOENT, or ENODEV when removed between open and read
            return None

    def cpu_usage_ns(self, place: str) -> int | None:
        """Return the CPU time used in the cgroup so far, None when it is gone."""
        if self.mode is CgroupMode.V2:
            text = self._read(place, "cpu", "cpu.stat")
            return None if text is None else cgroup_stats.cpu_usage_ns_v2(text)
        text = self._read(place, "cpuacct", "cpuacct.usage")
        return None if text is None else cgroup_stats.cpu_usage_ns_v1(text)

    def memory_working_set_bytes(self, place: str) -> int | None:
        """Return usage less inactive page cache, None when the cgroup is gone."""
        name = "memory.current" if self.mode is CgroupMode.V2 else "memory.usage_in_bytes"
        usage = self._read(place, "memory", name)
        stat = self._read(place, "memory", "memory.stat")
        if usage is None or stat is None:
            return None
        return cgroup_stats.memory_working_set_bytes(int(usage), stat)

    def _scope(self, place: str) -> str:
        """Return the unit's name when the place is a scope that systemd must make, else ""."""
        name = posixpath.basename(place)
        return name if self.driver is CgroupDriver.SYSTEMD and name.endswith(".scope") else ""

    def _start_scope(self, place: str, scope: str, pid: int) -> bool:
        """Start the scope with its first process and wait for the move; False if it was there first."""
        unit_slice = posixpath.basename(posixpath.dirname(place)) or "-.slice"
        if not systemd_units.start_scope(scope, unit_slice, [pid], f"noded {scope.removesuffix('.scope')}"):
            return False
        gone = f"cannot move process {pid} into the scope {scope}: it has ended"
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            raise NotFound(gone) from None
        try:
            deadline = time.monotonic() + _SCOPE_SECONDS
            while pid not in self.procs(place):
                if time.monotonic() >= deadline:
                    raise Unavailable(f"systemd did not move process {pid} into the scope {scope} in time")
                # busctl cannot wait for the end of systemd's job, a matter of milliseconds. A zombie
                # is never moved.
                if _ended(pidfd, cgroup_tree.SETTLE_SECONDS):
                    raise NotFound(gone)
        finally:
            os.close(pidfd)
        return True

    def _read(self, place: str, controller: str, name: str) -> str | None:
        directory = self.directory(place, controller)
        if directory is None:
            return None
        try:
            return (directory / name).read_text()
        except OSError:
            return None

    def _paths(self, place: str) -> list[Path]:
        place = cgroup_names.checked_place(place)
        return [hierarchy.path(place) for hierarchy in self._all]

    def _kill_unified(self, place: str) -> bool:
        """Use cgroup.kill (v2, Linux 5.14): atomic against forks. False where it cannot do it all."""
        if self._unified is None or self.mode is not CgroupMode.V2:
            return False
        try:
            (self._unified.path(place) / "cgroup.kill").write_text("1")
        except FileNotFoundError:
            # Removed meanwhile, or an older kernel: then the processes must be signalled one by one.
            return not self.exists(place)
        except OSError as error:
            raise libc.os_error(error, f"cannot kill the cgroup {place}") from None
        return True

    def _kill_frozen(self, place: str) -> None:
        """Freeze, signal, thaw: frozen processes cannot fork away from the list.

        A v1 freezer delivers SIGKILL only after the thaw. Killed in between, noded leaves a frozen
        cgroup, which the next kill thaws.
        """
        freezer = self.directory(place, "freezer")
        v2 = self.mode is CgroupMode.V2
        control = None if freezer is None else freezer / ("cgroup.freeze" if v2 else "freezer.state")
        try:
            _write_quietly(control, "1" if v2 else "FROZEN")
            self._signal_members(place)
        finally:
            _write_quietly(control, "0" if v2 else "THAWED")
            for directory in cgroup_tree.tree(freezer) if freezer is not None else ():
                # A paused container is frozen by its own cgroup: it must thaw to die.
                _write_quietly(
                    directory / ("cgroup.freeze" if v2 else "freezer.state"), "0" if v2 else "THAWED"
                )

    def _signal_members(self, place: str) -> None:
        """SIGKILL by pidfd, and only what is a member after its pidfd is open: pids are reused."""
        pidfds: dict[int, int] = {}
        try:
            for pid in self.procs(place):
                with suppress(OSError):  # ended, or out of descriptors: the caller's loop comes again
                    pidfds[pid] = os.pidfd_open(pid)
            for pid in self.procs(place) & pidfds.keys():
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)
        finally:
            for fd in pidfds.values():
                os.close(fd)


def _ended(pidfd: int, seconds: float) -> bool:
    """Tell whether the process ends within that time; poll(2), as descriptors may be beyond select's."""
    waiter = select.poll()
    waiter.register(pidfd, select.POLLIN)
    return bool(waiter.poll(seconds * 1000))


def _write_quietly(path: Path | None, text: str) -> None:
    if path is None:
        return
    try:
        write_small(path, text.encode())
    except OSError:  # gone, or no freezer: the caller's loop sees whether processes are left
        return
