"""Killing a tree of host processes for good, and waiting until they are gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import trio

from noded.errors import NotFound, Unavailable
from noded.host.processes import ProcessIdentity, children_of, descendants, kill_identity, reap, wait_pidfd

# A tree that still grows after so many rounds of stopping is a fork bomb; only the kill of its
# whole cgroup ends that.
_STOP_ROUNDS = 50
_STOP_SECONDS = 0.001  # pause between two rounds
_COMM_BYTES = 15  # TASK_COMM_LEN without the final NUL


def session_members(candidates: Iterable[int], session: int) -> set[int]:
    """Return those of `candidates` that belong to a session (setsid(2))."""
    return {pid for pid in candidates if (stat := _read_stat(pid)) is not None and stat.session == session}


def session_of(pid: int) -> int | None:
    """Return a process's session id, None when it is gone or in the daemon's own session."""
    stat = _read_stat(pid)
    return stat.session if stat is not None and stat.session not in (0, os.getsid(0)) else None


def holders(candidates: Iterable[int], pipes: Iterable[int]) -> set[int]:
    """Return those of `candidates` whose standard output or error is one of our pipes.

    Args:
        pipes: our descriptors of either end.
    """
    wanted = {(status.st_dev, status.st_ino) for status in map(os.fstat, pipes)}
    found = set()
    for pid in candidates:
        for fd in (1, 2):
            try:
                status = os.stat(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in wanted:
                found.add(pid)
    return found


def abandoned_zombies(program: str, leader: int) -> list[ProcessIdentity]:
    """Return own zombie children that a runtime did not wait for. Blocks on /proc.

    crun leaves a process that it could not turn into the wanted command. As a zombie in the
    container's PID namespace it would keep the container from ending.

    Args:
        program: the runtime's name. A process that became a command has another one.
        leader: pid that the runtime had; it led a process group.
    """
    name, own_session = os.path.basename(program)[:_COMM_BYTES], os.getsid(0)
    found = []
    for pid in children_of(os.getpid()):
        stat = _read_stat(pid)
        if stat is None or stat.state != "Z" or pid == leader:
            continue
        # Commands that the daemon itself runs stay in its session and lead their group.
        named = stat.comm.startswith(name) and stat.session != own_session
        if (named or stat.group == leader) and (identity := ProcessIdentity.of(pid)) is not None:
            found.append(identity)
    return found


def reap_namespace_zombies(init: ProcessIdentity) -> None:
    """Reap own zombie children in the PID namespace of a task that ends. Blocks on /proc.

    While one is left, init cannot die (zap_pid_ns_processes in the kernel). Tasks in the daemon's
    own PID namespace are left alone.
    """
    try:
        namespace = os.readlink(f"/proc/{init.pid}/ns/pid")
        if not init.exists() or namespace == os.readlink("/proc/self/ns/pid"):
            return
    except OSError:
        return
    for pid in children_of(os.getpid()) - {init.pid}:
        stat = _read_stat(pid)
        try:
            if stat is not None and stat.state == "Z" and os.readlink(f"/proc/{pid}/ns/pid") == namespace:
                reap(pid)
        except OSError:
            continue


class _Stat(NamedTuple):
    comm: str
    state: str
    group: int
    session: int


def _read_stat(pid: int) -> _Stat | None:
    """Read the fields of proc(5) /proc/PID/stat that this module needs; None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The name is in parentheses and may contain both.
        start, end = text.index("("), text.rindex(")")
        fields = text[end + 2 :].split()
        return _Stat(text[start + 1 : end], fields[0], int(fields[2]), int(fields[3]))
    except (OSError, ValueError, IndexError):
        return None


def stop_and_kill(roots: Iterable[ProcessIdentity], more: Callable[[], set[int]]) -> list[ProcessIdentity]:
    """Kill processes with all their descendants; return whom it killed. Blocks on /proc.

    They are stopped first: a stopped process cannot fork, so a tree that no longer grows is
    complete. Identities, not pids, are signalled.

    Args:
        more: further pids to kill with their descendants, asked again each round.
    """
    heads = {root.pid: root for root in roots}
    found: dict[int, ProcessIdentity] = {}
    for _ in range(_STOP_ROUNDS):
        for pid in more() - heads.keys() - found.keys():
            if (stray := ProcessIdentity.of(pid)) is not None:
                heads[pid] = stray
        pids: set[int] = set()
        for head in heads.values():
            if head.alive():
                pids |= {head.pid} | descendants(head.pid)
        fresh = [identity for pid in pids - found.keys() if (identity := ProcessIdentity.of(pid)) is not None]
        for identity in fresh:
            found[identity.pid] = identity
            kill_identity(identity, signal.SIGSTOP)
        if not fresh and not any(_runs(identity) for identity in found.values()):
            break
        # A stop takes effect when the process next leaves the kernel: until then it may still fork.
        time.sleep(_STOP_SECONDS)
    for identity in found.values():
        kill_identity(identity)
    return list(found.values())


def _runs(identity: ProcessIdentity) -> bool:
    stat = _read_stat(identity.pid)
    return stat is not None and stat.state in "RS" and identity.exists()


async def wait_gone(identities: Iterable[ProcessIdentity], *, timeout_seconds: float) -> None:
    """Wait until all processes are dead, and reap those that are this process's children.

    Each is reaped as soon as it is dead: the init of a PID namespace cannot die while a zombie of
    its namespace is left. And again at the end: a process that died before its parent becomes our
    child only with the parent's death.

    Raises: Unavailable naming those that survive, with what they wait for in the kernel.
    """
    everyone = set(identities)
    pending = set(everyone)

    async def wait(identity: ProcessIdentity) -> None:
        await wait_dead(identity)
        reap(identity.pid)
        pending.discard(identity)

    with trio.move_on_after(timeout_seconds):
        async with trio.open_nursery() as nursery:
            for identity in everyone:
                nursery.start_soon(wait, identity)
    for identity in everyone:
        if identity.exists():
            reap(identity.pid)
    if survivors := [identity for identity in pending if identity.alive()]:
        raise Unavailable(
            "cannot kill "
            + ", ".join(f"process {each.pid} ({describe(each.pid)})" for each in survivors)
            + f": still there {timeout_seconds:g} s after SIGKILL"
        )


async def wait_dead(identity: ProcessIdentity) -> None:
    """Return when the process is dead, reaped or not. Cancellation: safe, no effect."""
    try:
        fd = identity.open_pidfd()
    except NotFound:
        await trio.lowlevel.checkpoint()
        return
    try:
        await wait_pidfd(fd)
    finally:
        os.close(fd)


def is_stopped(identity: ProcessIdentity) -> bool:
    """Tell whether a process is stopped by a signal or a tracer."""
    stat = _read_stat(identity.pid)
    return stat is not None and stat.state in "tT"


def describe(pid: int) -> str:
    """Say in which state a process is and what it waits for, for messages."""
    stat = _read_stat(pid)
    if stat is None:
        return "gone"
    try:
        channel = Path(f"/proc/{pid}/wchan").read_text()
    except OSError:
        channel = ""
    return f"state {stat.state}" + (f", waits in {channel}" if channel not in ("", "0") else "")
