"""Where the built-in profile differs from the defaults of containerd and CRI-O on x86-64, and why.

What lets a call in is written as `always`, `arguments` (only with some), the capabilities each of which does,
or `-` for never. A test holds these tables against the peers' whole lists.
"""

from __future__ import annotations

from collections.abc import Mapping

from noded.spec.seccomp.calls import ALLOWED, WITH_CAPABILITY

_MACHINE = "x86_64"
_ADMIN = "CAP_SYS_ADMIN"

# What a peer says of the calls that it treats differently.
_PEERS: Mapping[str, Mapping[str, str]] = {
    "cri-o": {
        "-": """
            cachestat file_getattr file_setattr futex_requeue futex_wait futex_waitv futex_wake
            getxattrat io_pgetevents io_pgetevents_time64 listmount listxattrat
            lsm_get_self_attr lsm_list_modules map_shadow_stack mseal open_tree_attr readdir
            removexattrat set_mempolicy_home_node setxattrat sigaction sigpending sigsuspend
            statmount uprobe uretprobe
        """,
        "CAP_AUDIT_WRITE, arguments": "socket",
        "CAP_PERFMON": "perf_event_open",
        "CAP_SYS_ADMIN": "unshare",
        "CAP_SYS_MODULE": "query_module",
        "always": """
            epoll_ctl_old epoll_wait_old fanotify_init fsconfig fsmount fsopen fspick keyctl
            mount mount_setattr move_mount open_tree pidfd_getfd pivot_root reboot setns syslog
            umount umount2
        """,
    },
    "containerd": {
        "-": """
            file_getattr file_setattr open_tree_attr pivot_root readdir sigaction signal
            sigpending sigsuspend uprobe
        """,
        "CAP_SYS_ADMIN": "unshare",
        "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
        "always": """
            epoll_ctl_old epoll_wait_old listmount lsm_set_self_attr statmount vmsplice
        """,
    },
}

# Every call that some peer treats differently, with the reason. A test wants each difference here once.
_REASONS = {
    "epoll_ctl_old epoll_wait_old query_module": (
        "numbers without a call behind them: the kernel answers ENOSYS, and so does the profile"
    ),
    "keyctl": "keys are bound to the user id, not to the container: pods of one uid would share them",
    "vmsplice": "lets a process change pages that a pipe's reader holds already; nearly no program uses it",
    "lsm_set_self_attr": "changes the label of the process; libraries fall back to /proc/self/attr on ENOSYS",
    "listmount statmount": (
        "a new way to read the mount table, which may show mounts of the node; libraries fall back on ENOSYS"
    ),
    "fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree open_tree_attr pivot_root "
    "umount umount2": (
        "one rule for the whole mount family: CAP_SYS_ADMIN, which the kernel asks for too. CRI-O allows "
        "all for containers in containers; such a pod can bring a profile"
    ),
    "setns": "entering a namespace needs CAP_SYS_ADMIN in the kernel as well",
    "fanotify_init": "events of whole file systems; programs of one container use inotify",
    "syslog": "the kernel's log is the node's, not the container's",
    "reboot": "only a container that may restart its PID namespace needs it",
    "pidfd_getfd": "takes descriptors out of another process, as a debugger with CAP_SYS_PTRACE does",
    "perf_event_open": "CAP_SYS_ADMIN implied CAP_PERFMON before Linux 5.8 and still does in the kernel",
    "unshare": (
        "without namespace flags it only stops sharing of files and directories with sibling threads, which "
        "programs with worker threads do; with such flags it needs CAP_SYS_ADMIN, as with the peers"
    ),
    "socket": ("AF_ALG and AF_VSOCK are out; audit messages (AF_NETLINK) are left to the kernel's own check"),
    "get_mempolicy mbind set_mempolicy set_mempolicy_home_node": (
        "a process places its own memory, on the nodes that its cpuset allows: databases and JVMs do"
    ),
    "cachestat file_getattr file_setattr getxattrat listxattrat removexattrat setxattrat": (
        "new forms of allowed calls, with the same checks in the kernel"
    ),
    "futex_requeue futex_wait futex_waitv futex_wake": "the newer form of futex, which is allowed",
    "io_pgetevents io_pgetevents_time64": "io_getevents with a signal mask, as pselect to select",
    "lsm_get_self_attr lsm_list_modules": "read what /proc/self/attr and /sys/kernel/security show already",
    "map_shadow_stack mseal uprobe uretprobe": (
        "protect the caller's own memory, or are made by the kernel's probes: refusing breaks traced programs"
    ),
    "readdir sigaction signal sigpending sigsuspend": (
        "the older form, on 32-bit x86, of calls that are allowed"
    ),
}

REASONS: Mapping[str, str] = {call: reason for calls, reason in _REASONS.items() for call in calls.split()}


def grants() -> dict[str, str]:
    """What lets each call in that the built-in profile allows."""
    found = {
        "clone": f"{_ADMIN}, arguments",
        "unshare": f"{_ADMIN}, arguments",
        "clone3": _ADMIN,
        "socket": "arguments",
        "personality": "arguments",
    }
    for group in (*ALLOWED, *WITH_CAPABILITY):
        if not group.machines or _MACHINE in group.machines:
            answer = ", ".join(sorted(group.capabilities)) or "always"
            found.update(dict.fromkeys(group.names, answer))
    return found


def differences(peer: str) -> dict[str, tuple[str, str]]:
    """Calls that a peer treats differently, sorted: what noded says and what the peer does."""
    own = grants()
    theirs = {call: answer for answer, calls in _PEERS[peer].items() for call in calls.split()}
    return {call: (own.get(call, "-"), theirs[call]) for call in sorted(theirs)}
