"""Kernel parameters of pod namespaces (sysctl(8)), written from inside them."""

from __future__ import annotations

import ctypes
import os
import platform
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from noded.errors import FailedPrecondition, InvalidArgument, Unimplemented
from noded.host import libc, namespaces

_FIELD = "linux.sysctls"
_PROC_SYS = Path("/proc/sys")

_IPC = re.compile(
    r"kernel/(shm(all|max|mni|_rmid_forced|_next_id)|msg(max|mnb|mni|_next_id)|sem|sem_next_id)|fs/mqueue/[a-z_]+"
)
_UTS = frozenset({"kernel/hostname", "kernel/domainname"})

_PR_SET_DUMPABLE = 4

# setresuid(2) of one thread. The C library's call changes all threads of the process (nptl(7)).
_SYS_SETRESUID = {
    "x86_64": 117, "aarch64": 147, "riscv64": 147, "loongarch64": 147, "ppc64le": 164, "s390x": 208,
}  # fmt: skip


def canonical_name(name: str) -> str:
    """Return the path below /proc/sys of a sysctl in dotted or slashed form.

    The first separator decides: in `net.ipv4.conf.eth0/100.forwarding` and in
    `net/ipv4/conf/eth0.100/forwarding` the device is `eth0.100` (sysctl.d(5)).

    Raises: InvalidArgument when it is not a name.
    """
    first = re.search(r"[./]", name)
    path = name.translate({ord("."): "/", ord("/"): "."}) if first and first[0] == "." else name
    parts = path.split("/")
    if len(parts) < 2 or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise InvalidArgument(f"{_FIELD}: {name!r} is not the name of a sysctl")
    return path


def namespace_of(name: str) -> str | None:
    """Return the namespace kind (`net`, `ipc`, `uts`) that a sysctl belongs to, None = the whole node."""
    path = canonical_name(name)
    if path.startswith("net/"):
        return "net"
    if path in _UTS:
        return "uts"
    return "ipc" if _IPC.fullmatch(path) else None


def apply(pins: Mapping[str, Path], sysctls: Mapping[str, str]) -> None:
    """Write sysctls inside pinned namespaces. Blocks for well under a millisecond per sysctl.

    Args:
        pins: kind to pin, the pod's own namespaces only.

    Raises:
        InvalidArgument: not namespaced, or the pod shares that namespace with the host, or the
            kernel refuses the value. Nothing has been written in the first two cases.
        FailedPrecondition: this kernel has no such sysctl.
    """
    for name, kind, path, value in check(frozenset(pins), sysctls):
        # One thread each: `_write` may give up the thread's uid.
        namespaces.inside({kind: pins[kind]}, partial(_write, path, name, value))


def check(kinds: frozenset[str], sysctls: Mapping[str, str]) -> list[tuple[str, str, Path, str]]:
    """Return (name, kind, file, value) of each; `kinds` are the namespaces that the pod has of its own.

    Raises: InvalidArgument.
    """
    plan = []
    for name, value in sysctls.items():
        kind = namespace_of(name)
        if kind is None:
            raise InvalidArgument(f"{_FIELD}: {name} is not namespaced, it would change the whole node")
        if kind not in kinds:
            raise InvalidArgument(
                f"{_FIELD}: {name} needs the pod's own {kind} namespace, the pod uses the host's"
            )
        plan.append((name, kind, _PROC_SYS / canonical_name(name), value))
    return plan


def _write(path: Path, name: str, value: str) -> None:
    try:
        try:
            _write_file(path, value)
        except PermissionError:
            _become(os.stat(path).st_uid)
            _write_file(path, value)
    except FileNotFoundError:
        raise FailedPrecondition(f"{_FIELD}: this kernel has no {name}") from None
    except PermissionError as error:
        raise InvalidArgument(f"{_FIELD}: {name} cannot be set inside a pod ({error.strerror})") from None
    except OSError as error:
        raise InvalidArgument(f"{_FIELD}: the kernel refuses {name}={value!r} ({error.strerror})") from None


def _write_file(path: Path, value: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _become(uid: int) -> None:
    """Take the owner's effective uid in this thread, which ends soon.

    ipc sysctls of a namespace that a user namespace owns may be written by its root only: the
    kernel compares uids there, not capabilities (ipc_permissions() in ipc/ipc_sysctl.c).
    """
    number = _SYS_SETRESUID.get(platform.machine())
    if number is None:
        raise Unimplemented(
            f"{_FIELD}: ipc sysctls with user namespaces are not supported on {platform.machine()}"
        )
    libc.call("syscall", *(ctypes.c_long(value) for value in (number, -1, uid, -1)))
    # The change made the whole process undumpable (commit_creds() in kernel/cred.c): undo that part.
    libc.call("prctl", ctypes.c_int(_PR_SET_DUMPABLE), *(ctypes.c_ulong(value) for value in (1, 0, 0, 0)))
