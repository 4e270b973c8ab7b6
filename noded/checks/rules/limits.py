"""Limits that many pods run into."""

from __future__ import annotations

from collections.abc import Iterator

from noded.checks.facts import Facts
from noded.checks.result import Result, ok, warn

_NOFILE = 65536
# Name, least value, what it is for. Defaults of old kernels are lower than what a full node needs.
_SYSCTLS = (
    ("kernel.pid_max", 65536, "every thread of every pod has a pid: forks fail when they run out"),
    ("kernel.threads-max", 65536, "every thread of every pod counts: forks fail at the limit"),
    ("fs.inotify.max_user_instances", 512, "kubelet, noded and pods that watch files share them"),
    ("fs.inotify.max_user_watches", 65536, "kubelet, noded and pods that watch files share them"),
    ("kernel.keys.root_maxkeys", 10000, "runc makes a session keyring for each container of root"),
    ("kernel.keys.maxkeys", 200, "each container of one user has a session keyring"),
    ("fs.file-max", 262144, "all processes of the node share it"),
)


def judge(facts: Facts) -> Iterator[Result]:
    """Open files, pids, inotify, keyrings."""
    limits = facts.limits
    unit = "noded.service"
    if 0 <= limits.nofile < _NOFILE:
        yield warn(
            "limits.nofile",
            f"{limits.of} may open {limits.nofile} files",
            "containers inherit it; databases and proxies want more, and noded needs some for each pod",
            f"LimitNOFILE=1048576 in the unit (systemctl edit {unit}; systemctl restart {unit})",
        )
    else:
        yield ok("limits.nofile", "no limit" if limits.nofile < 0 else str(limits.nofile))
    if 0 <= limits.nproc < _NOFILE:
        yield warn(
            "limits.nproc",
            f"{limits.of} may have {limits.nproc} processes",
            "containers inherit it, and count together for each user id",
            f"LimitNPROC=infinity in the unit (systemctl edit {unit}; systemctl restart {unit})",
        )
    for name, least, why in _SYSCTLS:
        value = limits.sysctls.get(name)
        if value is None:
            continue
        if value < least:
            yield warn(
                f"limits.{name}",
                f"{name} is {value}",
                why,
                f"echo {name}={least} >>/etc/sysctl.d/91-noded.conf; sysctl --system",
            )
        else:
            yield ok(f"limits.{name}", str(value))
