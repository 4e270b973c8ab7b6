"""The node as a whole: processes, sockets, limits, swap, clock."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import stat
import struct
from contextlib import suppress
from pathlib import Path

from noded.checks import facts
from noded.checks.gather.kernel import sysctl, text
from noded.host.sockets import somebody_listens

_RIVALS = ("containerd", "crio", "dockerd", "cri-dockerd", "k3s", "rke2")
_RIVAL_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/k3s/containerd/containerd.sock",
)
_LIMIT_SYSCTLS = (
    "kernel.pid_max",
    "kernel.threads-max",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "kernel.keys.root_maxkeys",
    "kernel.keys.maxkeys",
    "fs.file-max",
)
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_BYTES = 256  # more than struct timex of any architecture


def processes(*names: str) -> list[tuple[str, list[str]]]:
    """Name and command line of every process with one of these names."""
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        name = text(f"{entry.path}/comm")
        if name in names:
            words = text(f"{entry.path}/cmdline").split("\0")
            found.append((name, [word for word in words if word]))
    return found


def rivals(listen: Path) -> facts.Rivals:
    """Other runtimes: that run, or on whose socket somebody listens."""
    names = {name for name, _ in processes(*_RIVALS)}
    sockets = [path for path in _RIVAL_SOCKETS if path != str(listen) and _is_socket(path)]
    return facts.Rivals(tuple(sorted(names)), tuple(path for path in sockets if somebody_listens(Path(path))))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def socket_facts(listen: Path) -> facts.Daemon:
    """Who may reach, or replace, the daemon's socket; whether it answers is not asked here."""
    mode = directory_mode = None
    owner = 0
    with suppress(OSError):
        mode = stat.S_IMODE(listen.lstat().st_mode)
    with suppress(OSError):
        status = listen.parent.stat()
        directory_mode, owner = stat.S_IMODE(status.st_mode), status.st_uid
    return facts.Daemon(
        listen=str(listen), socket_mode=mode, directory_mode=directory_mode, directory_owner=owner
    )


def limits(listen: Path) -> facts.Limits:
    """Limits of the daemon that listens there, else of this process."""
    pid, of = _listener(listen), "noded"
    if pid <= 1:  # nobody, or systemd, which holds the socket of a unit
        pid, of = os.getpid(), "this shell"
    try:
        nofile = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        nproc = resource.prlimit(pid, resource.RLIMIT_NPROC)[1]
    except (OSError, ValueError):
        return facts.Limits(of=of)
    return facts.Limits(of=of, nofile=nofile, nproc=nproc)


def limit_sysctls() -> dict[str, int]:
    """Limits of the whole node, by name."""
    return {name: int(value) for name in _LIMIT_SYSCTLS if (value := sysctl(name)).isdigit()}


def _listener(path: Path) -> int:
    """Pid of who called listen(2), 0 = nobody. Spec: unix(7), SO_PEERCRED."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)
        try:
            client.connect(os.fspath(path))
            data = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return 0
    return int(struct.unpack("3i", data)[0])


def swap_bytes() -> int:
    """Size of all swap areas."""
    lines = text("/proc/swaps").splitlines()[1:]
    return sum(int(line.split()[2]) * 1024 for line in lines)


def clock_synchronized() -> bool | None:
    """Whether the kernel says that something keeps its clock right. Spec: adjtimex(2)."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if state < 0 else state != _TIME_ERROR
