"""Transient systemd scopes, through `busctl` (part of systemd): for monitors outside noded's own unit.

Container scopes are made by the runtimes themselves (`--systemd-cgroup`).
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from noded.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unavailable

_BUS = ("busctl", "--system", "--no-pager")
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_DEADLINE_SECONDS = 20.0


def start_scope_arguments(scope: str, unit_slice: str, pids: Sequence[int], description: str) -> list[str]:
    """Return the command that moves processes into a new scope (org.freedesktop.systemd1(5)).

    Raises: InvalidArgument for a name that is no scope or without a pid.
    """
    if not scope.endswith(".scope") or not unit_slice.endswith(".slice") or not pids:
        raise InvalidArgument(
            f"systemd: cannot make the scope {scope!r} in {unit_slice!r} for pids {list(pids)}"
        )
    properties = [
        ("Description", "s", description),
        ("Slice", "s", unit_slice),
        ("PIDs", "au", str(len(pids)), *map(str, pids)),
        ("Delegate", "b", "true"),
        ("DefaultDependencies", "b", "false"),
        # Otherwise a scope whose process failed stays loaded, and its name taken.
        ("CollectMode", "s", "inactive-or-failed"),
    ]
    return [
        *_BUS, "call", *_MANAGER, "StartTransientUnit", "ssa(sv)a(sa(sv))",
        scope, "fail",
        str(len(properties)), *(word for item in properties for word in item),
        "0",
    ]  # fmt: skip


def stop_unit_arguments(unit: str) -> list[str]:
    """Return the command that stops a unit."""
    return [*_BUS, "call", *_MANAGER, "StopUnit", "ss", unit, "replace"]


def start_scope(scope: str, unit_slice: str, pids: Sequence[int], description: str) -> bool:
    """Ask for a new transient scope with these processes; False when the scope exists already.

    systemd moves the processes soon after the return. Blocks: use from a worker thread.

    Raises: FailedPrecondition without busctl, DeadlineExceeded, Unavailable with systemd's words.
    """
    said = _run(start_scope_arguments(scope, unit_slice, pids, description))
    if "already exists" in said or "was already loaded" in said:
        return False
    if said:
        raise Unavailable(f"systemd did not make the scope {scope}: {said}")
    return True


def stop_unit(unit: str) -> None:
    """Ask systemd to stop a unit. A unit that is not loaded is success.

    Raises: as `start_scope`.
    """
    said = _run(stop_unit_arguments(unit))
    if said and "not loaded" not in said:
        raise Unavailable(f"systemd did not stop {unit}: {said}")


def _run(arguments: list[str]) -> str:
    """Return what a failing busctl said, "" on success."""
    try:
        done = subprocess.run(
            arguments, stdin=subprocess.DEVNULL, capture_output=True, timeout=_DEADLINE_SECONDS, check=False
        )
    except FileNotFoundError:
        raise FailedPrecondition(
            "busctl was not found: install systemd, or set cgroup_driver = cgroupfs"
        ) from None
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"systemd did not answer busctl within {_DEADLINE_SECONDS:.0f} s") from None
    if done.returncode == 0:
        return ""
    return done.stderr.decode(errors="replace").strip() or f"busctl exit code {done.returncode}"
