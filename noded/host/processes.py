"""Processes by identity: a pid alone names a process only until it is reused.

noded is a child subreaper, so monitors that fork twice become its children. It reaps them one by
one: a wait for "any child" would steal the children of trio and asyncio.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.errors import NotFound, Unavailable
from noded.host import libc
from noded.host.small_files import read_small

log = structlog.get_logger(__name__)

_PR_SET_CHILD_SUBREAPER = 36
_KILL_SECONDS = 10.0  # what a process may take to die of SIGKILL; longer means stuck in the kernel

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
    "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
    "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip  # by number, linux/capability.h


def parse_stat(text: str) -> tuple[str, int, int]:
    """Return (state letter, parent pid, start time in clock ticks since boot) of /proc/PID/stat.

    The command name, in parentheses, may itself hold spaces and parentheses.

    Raises: ValueError.
    """
    fields = text[text.rindex(")") + 2 :].split()
    if len(fields) < 20:
        raise ValueError(f"not a process status: {text!r}")
    return fields[0], int(fields[1]), int(fields[19])


def parse_capabilities(mask: int) -> frozenset[str]:
    """Return the names of the bits; bits newer than this list are left out."""
    return frozenset(name for number, name in enumerate(CAPABILITIES) if mask >> number & 1)


def _read_stat(pid: int) -> tuple[str, int, int] | None:
    try:
        content = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return parse_stat(content.decode(errors="replace"))


def start_time(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot; None when it is gone."""
    stat = _read_stat(pid)
    return None if stat is None else stat[2]


def is_zombie(pid: int) -> bool:
    """Tell whether a process has ended and waits to be reaped."""
    stat = _read_stat(pid)
    return stat is not None and stat[0] == "Z"


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process for all time, within one boot."""

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """Return the identity of a process that exists now, zombies included."""
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    def exists(self) -> bool:
        """Tell whether the process is there, perhaps as a zombie."""
        return start_time(self.pid) == self.start_time

    def alive(self) -> bool:
        """Tell whether it still runs: a zombie is dead."""
        stat = _read_stat(self.pid)
        return stat is not None and stat[2] == self.start_time and stat[0] not in "ZX"

    def open_pidfd(self) -> int:
        """Return a pidfd of exactly this process.

        Raises: NotFound when it is gone.
        """
        fd = open_pidfd(self.pid)
        if not self.exists():
            os.close(fd)
            raise NotFound(f"process {self.pid} is gone")
        return fd


def become_subreaper() -> None:
    """Make orphaned descendants children of this process (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    try:
        libc.call("prctl", ctypes.c_int(_PR_SET_CHILD_SUBREAPER), *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
    except OSError as error:
        raise libc.os_error(error, "cannot become a child subreaper") from None


def open_pidfd(pid: int) -> int:
    """Return a file descriptor of a process; the caller closes it.

    Raises: NotFound when there is no such process; others by errno.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        raise libc.os_error(error, f"cannot watch process {pid}") from None


async def wait_pidfd(fd: int) -> None:
    """Return when the process has ended (a zombie has). Cancellation: safe, no effect."""
    await trio.lowlevel.wait_readable(fd)


def reap(pid: int) -> int | None:
    """Collect an ended child; return its exit code, 128 + signal when killed.

    None when it still runs, is not a child or has been collected.
    """
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status


def children_of(pid: int) -> set[int]:
    """Return the pids of the direct children, zombies included; empty when the process is gone."""
    children: set[int] = set()
    try:
        for path in Path(f"/proc/{pid}/task").iterdir():
            children.update(map(int, (path / "children").read_text().split()))
    except FileNotFoundError:
        # The process or a thread is gone, or the kernel has no CONFIG_PROC_CHILDREN.
        return {child for child, parent in _parents().items() if parent == pid}
    except ProcessLookupError:
        return set()
    return children


def descendants(pid: int) -> set[int]:
    """Return the pids of children, their children and so on, from one pass over /proc."""
    parents = _parents()
    by_parent: dict[int, set[int]] = {}
    for child, parent in parents.items():
        by_parent.setdefault(parent, set()).add(child)
    found: set[int] = set()
    pending = [pid]
    while pending:
        new = by_parent.get(pending.pop(), set()) - found
        found |= new
        pending.extend(new)
    return found


def commands() -> Iterator[tuple[int, list[bytes]]]:
    """Pids and arguments of all processes; those of zombies and kernel threads are empty."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                data = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue  # ended meanwhile
            yield int(name), data.removesuffix(b"\0").split(b"\0")


def argument_of(words: Sequence[bytes], option: bytes) -> bytes | None:
    """The word behind an option of a command, None when there is none."""
    if option not in words[:-1]:
        return None
    return words[words.index(option) + 1]


def _parents() -> dict[int, int]:
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _read_stat(int(name))) is not None:
            parents[int(name)] = stat[1]
    return parents


def kill_identity(identity: ProcessIdentity, number: int = signal.SIGKILL) -> bool:
    """Signal exactly this process; False when it is gone."""
    try:
        fd = identity.open_pidfd()
    except NotFound:
        return False
    try:
        signal.pidfd_send_signal(fd, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise libc.os_error(error, f"cannot signal process {identity.pid}") from None
    finally:
        os.close(fd)
    return True


async def terminate(identity: ProcessIdentity, grace_seconds: float) -> None:
    """End a process: SIGTERM, SIGKILL after the grace, wait, and reap it if it is a child. Idempotent.

    Raises: Unavailable when even SIGKILL does not end it within 10 s.
    Cancellation: safe; the process may live on with its SIGTERM.
    """
    try:
        fd = identity.open_pidfd()
    except NotFound:
        return
    try:
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
            if seconds <= 0:
                continue
            try:
                signal.pidfd_send_signal(fd, number)
            except ProcessLookupError:
                break
            with trio.move_on_after(seconds) as scope:
                await wait_pidfd(fd)
            if not scope.cancelled_caught:
                break
        else:
            raise Unavailable(f"process {identity.pid} does not end: it ignores SIGKILL, stuck in the kernel")
    finally:
        os.close(fd)
    reap(identity.pid)


def bounding_capabilities() -> frozenset[str]:
    """Return the CAP_ names that this process can hand to containers (CapBnd, capabilities(7))."""
    return _own_capabilities("CapBnd")


def effective_capabilities() -> frozenset[str]:
    """Return the CAP_ names that this process has."""
    return _own_capabilities("CapEff")


def _own_capabilities(key: str) -> frozenset[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return parse_capabilities(int(value, 16))
    return frozenset()


def set_oom_score_adj(pid: int, value: int) -> bool:
    """Set how much the kernel prefers a process as victim, -1000 (never) to 1000.

    Returns: False, with the reason in the log, when lowering is not allowed or the process is gone.
    """
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text(f"{value}\n")
    except (PermissionError, FileNotFoundError, ProcessLookupError) as error:
        log.warning("oom_score_adj not set", pid=pid, value=value, reason=error.strerror)
        return False
    except OSError as error:
        raise libc.os_error(error, f"cannot set oom_score_adj of process {pid} to {value}") from None
    return True
