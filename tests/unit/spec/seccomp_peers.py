"""The built-in profile beside the peers' defaults, call by call: facts, differences, and their reasons.

`peers/*.tsv` hold facts: for each system call on x86-64 what lets it in: `always`, `arguments` (only with
some), or the capabilities each of which does. Run as a program, this prints the comparison of
`docs/seccomp.md`.
"""

from __future__ import annotations

from pathlib import Path

from noded.spec.seccomp.calls import ALLOWED, DENIED, WITH_CAPABILITY

PEERS = {"CRI-O": "crio.tsv", "containerd": "containerd.tsv"}
MACHINE = "x86_64"

Grants = dict[str, frozenset[str]]


def peer(name: str) -> Grants:
    text = (Path(__file__).with_name("peers") / PEERS[name]).read_text()
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    return {call: frozenset(grants.split()) for call, grants in rows}


def ours() -> Grants:
    """The same facts of the built-in profile, from its tables."""
    admin = frozenset({"CAP_SYS_ADMIN"})
    grants: Grants = {
        "clone": admin | {"arguments"},
        "unshare": admin | {"arguments"},
        "clone3": admin,
        "socket": frozenset({"arguments"}),
        "personality": frozenset({"arguments"}),
    }
    for group in (*ALLOWED, *WITH_CAPABILITY):
        if not group.machines or MACHINE in group.machines:
            for name in group.names:
                grants[name] = frozenset(group.capabilities) or frozenset({"always"})
    return grants


def differences(name: str) -> dict[str, tuple[str, str]]:
    """Calls that the peer treats differently -> (noded's grants, the peer's), "-" = never."""
    own, other = ours(), peer(name)
    known = {call for group in (*ALLOWED, *WITH_CAPABILITY, *DENIED) for call in group.names} | own.keys()
    never = frozenset({"-"})
    return {
        call: (_text(own.get(call, never)), _text(other.get(call, never)))
        for call in sorted(known | other.keys())
        if own.get(call, never) != other.get(call, never)
    }


def _text(grants: frozenset[str]) -> str:
    return ", ".join(sorted(grants))


# Every call that some peer treats differently, with the reason. A test wants each difference here once.
REASONS = {
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

_HEAD = """| call | noded | {peers} | why |
|---|---|{rule}|---|
"""


def table() -> str:
    """The comparison as Markdown: a row for each call that noded and a peer treat differently."""
    found = {name: differences(name) for name in PEERS}
    own = ours()
    never = frozenset({"-"})
    calls = {call: reason for names, reason in REASONS.items() for call in names.split()}
    rows = [_HEAD.format(peers=" | ".join(PEERS), rule="---|" * len(PEERS)).rstrip()]
    for call in sorted({call for one in found.values() for call in one}):
        cells = [_text(own.get(call, never))]
        cells += [found[name][call][1] if call in found[name] else "same" for name in PEERS]
        rows.append(f"| `{call}` | {' | '.join(cells)} | {calls[call]} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    print(table(), end="")
