"""The default AppArmor profile, as apparmor.d(5) text. Pure: `noded.host.apparmor` loads it.

Unlike seccomp, masked and read-only paths, AppArmor sees which file is meant, through whatever mount a
process has reached it. So the profile allows what is a container's own business and repeats, for
the kernel's own file systems, what masks and read-only mounts are there for:

- no mount(2), whatever capabilities say: a second proc or sysfs would have no masks;
- nothing in /proc is written but the files of processes and the sysctls that belong to a namespace;
- nothing in /sys is written but cgroups, where read-only mounts and cgroup namespaces decide;
- what leaks secrets of the kernel or the firmware is not even read;
- signals and ptrace(2) stay between the processes of containers; who manages them may signal them.

The profile declares no feature ABI, so that every apparmor_parser since 2.13 takes it and newer
mediation (user namespaces, io_uring), which seccomp covers, denies nothing that older kernels allow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from noded.errors import InvalidArgument

NAME = "noded-default"

# sysctls that the kernel keeps per network, IPC, UTS or PID namespace: proc_sys(5), namespaces(7).
_NAMESPACED_SYSCTLS = (
    "net/", "fs/mqueue/", "kernel/domainname", "kernel/hostname", "kernel/msg", "kernel/ns_last_pid",
    "kernel/sem", "kernel/shm",
)  # fmt: skip
_PROCESSES = (*"0123456789", "self", "thread-self")
_UNREADABLE = (
    "/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/proc/sched_debug", "/proc/timer_list",
    "/sys/firmware/**", "/sys/devices/virtual/powercap/**", "/sys/kernel/debug/**",
    "/sys/kernel/security/**", "/sys/kernel/tracing/**",
)  # fmt: skip
# Profiles of AppArmor 4's own package that confine nothing, but name the runtimes: apparmor.d(5).
_RUNTIMES = ("unconfined", "crun", "runc")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def default_profile(name: str = NAME, managers: Iterable[str] = ()) -> str:
    """Return the profile's source.

    Args:
        name: of the profile.
        managers: labels of further processes that may signal containers: the daemon's own.

    Raises: InvalidArgument for a name that AppArmor would not take as it is.
    """
    if not _PLAIN_NAME.fullmatch(name):
        raise InvalidArgument(f"AppArmor profile {name!r}: only letters, digits and _ . - are possible")
    peers = tuple(dict.fromkeys((*_RUNTIMES, *(label for label in managers if _PLAIN_NAME.fullmatch(label)))))
    rules = [
        "network,",
        "capability,",
        "file,",
        "umount,",
        *(f"signal (receive) peer={peer}," for peer in peers),
        f"signal (send, receive) peer={name},",
        f"ptrace (trace, read, tracedby, readby) peer={name},",
        "deny mount,",
        *(f"deny {path} rwklx," for path in _UNREADABLE),
        # Files directly in /proc, then its directories that are not of processes.
        "deny /proc/* wkl,",
        *_deny_writes("/proc/", (*_PROCESSES, "sys/")),
        *_deny_writes("/proc/sys/", _NAMESPACED_SYSCTLS),
        *_deny_writes("/sys/", ("fs/cgroup/",)),
    ]
    lines = "".join(f"  {rule}\n" for rule in rules)
    # Containers see files through mounts that a disconnected path leads to, and deleted ones.
    return f"profile {name} flags=(attach_disconnected,mediate_deleted) {{\n{lines}}}\n"


def all_but(allowed: Sequence[str]) -> list[str]:
    """Return globs that together match every text without one of these prefixes.

    A text that is itself a beginning of a prefix and ends there is not matched.
    """
    globs = []
    beginnings = sorted({prefix[:length] for prefix in allowed for length in range(len(prefix))})
    for beginning in beginnings:
        if beginning.startswith(tuple(allowed)):
            continue
        following = sorted({prefix[len(beginning)] for prefix in allowed if prefix.startswith(beginning)})
        # In a class only a leading ^, a ] and a - between two others would mean something.
        following.sort(key=lambda character: character == "-")
        globs.append(f"{beginning}[^{''.join(following)}]**")
    return globs


def _deny_writes(directory: str, allowed: Sequence[str]) -> list[str]:
    return [f"deny {directory}{glob} wkl," for glob in all_but(allowed)]
