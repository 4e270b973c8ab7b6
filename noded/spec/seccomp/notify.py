"""Filters that tell of system calls, and the profile that a recording gives. Pure.

Three things every such filter heeds: the runtimes refuse to be told of `write`, with which they report
themselves, and of everything by the default action; so calls are named one by one. And what a runtime calls
between loading the filter and handing its descriptor over would wait for an answer that nobody can give yet:
runc's own threads, memory and signals do not ask (a preempted runc waited in rt_sigreturn for ever).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from noded.errors import FailedPrecondition
from noded.spec.seccomp.annotations import NotifyMode
from noded.spec.seccomp.architectures import architectures
from noded.spec.seccomp.calls import ALLOWED, DENIED, EPERM, WITH_CAPABILITY

ALLOW, ERRNO, LOG, NOTIFY = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY"
_UNTOLD = """
    write brk clock_gettime epoll_ctl epoll_pwait futex getpid gettid madvise mmap mprotect munmap
    nanosleep rt_sigprocmask rt_sigreturn sched_yield sigaltstack tgkill
"""
UNTOLD = frozenset(_UNTOLD.split())

# Calls by argument are in no group of `calls`.
NAMES = frozenset(
    {"clone", "clone3", "unshare", "socket", "personality"}
    | {name for group in (*ALLOWED, *WITH_CAPABILITY, *DENIED) for name in group.names}
)

# What runc and crun call between loading the filter and the container's program, which is more or less
# by chance (threads of the Go runtime, its memory, its signals) and differs between them and versions.
_RUNTIME = """
    access brk capget capset chdir clock_gettime clock_nanosleep close close_range dup dup3
    epoll_create1 epoll_ctl epoll_pwait eventfd2 execve execveat exit exit_group faccessat
    faccessat2 fchdir fchown fcntl fstat fstatfs futex getcwd getdents64 getpid getppid getrandom
    gettid getuid ioctl lseek madvise mmap mprotect munmap nanosleep newfstatat open openat openat2
    pipe2 prctl prlimit64 pselect6 read readlinkat restart_syscall rt_sigaction rt_sigprocmask
    rt_sigreturn sched_getaffinity sched_yield seccomp set_robust_list set_tid_address setgid
    setgroups setresgid setresuid setsid setuid sigaltstack stat statfs statx tgkill umask wait4
    write
"""
RUNTIME_CALLS = frozenset(_RUNTIME.split())


def telling(
    profile: Mapping[str, Any] | None, mode: NotifyMode, listener: str, architecture: str
) -> dict[str, Any] | None:
    """The container's filter, telling a listener what `mode` wants to know; None stays no filter.

    Args:
        profile: OCI `linux.seccomp`, None for an unconfined container.
        listener: path of the socket that gets the filter's descriptor.

    Raises: FailedPrecondition when the profile has a listener, or calls that cannot be told apart.
    """
    if profile is not None and profile.get("listenerPath"):
        raise FailedPrecondition(
            "the container's seccomp profile has a listener of its own: its calls cannot be told to noded too"
        )
    metadata: dict[str, Any]
    if mode is NotifyMode.RECORD:
        names = architectures(architecture)
        base = profile or {"defaultAction": ALLOW, **({"architectures": list(names)} if names else {})}
        rules, metadata = _recorded(base), {"mode": mode.value, "errnos": None}
    elif profile is None:
        return None
    else:
        base = profile
        rules, errnos = _reported(base)
        metadata = {"mode": mode.value, "errnos": errnos}
    told = {key: value for key, value in base.items() if key != "syscalls"}
    return {
        **told,
        "listenerPath": listener,
        "listenerMetadata": json.dumps(metadata, sort_keys=True),
        "syscalls": rules,
    }


def errnos_of(seccomp: Mapping[str, Any]) -> dict[str, int] | None:
    """By name, what a filter of `telling` answers to blocked calls other than EPERM; None: they go on."""
    errnos: dict[str, int] | None = json.loads(seccomp["listenerMetadata"])["errnos"]
    return errnos


def _recorded(base: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every allowed call is told; what was kept out stays so."""
    rules: list[dict[str, Any]] = []
    named: set[str] = set()
    open_ = base["defaultAction"] in (ALLOW, LOG)
    for rule in base.get("syscalls") or ():
        names = set(rule["names"])
        named |= names
        if rule["action"] not in (ALLOW, LOG):
            if open_ and rule.get("args"):
                raise FailedPrecondition(
                    f"the container's seccomp profile allows {', '.join(sorted(names))} "
                    "but for some arguments: such calls cannot be recorded"
                )
            rules.append(dict(rule))
            continue
        rules += _split(rule, names)
    if open_:
        rules += _split({}, set(NAMES - named))
    return rules


def _split(rule: Mapping[str, Any], names: set[str]) -> list[dict[str, Any]]:
    kept = {"args": rule["args"]} if rule.get("args") else {}
    rules = []
    if names - UNTOLD:
        rules.append({"names": sorted(names - UNTOLD), "action": NOTIFY, **kept})
    if names & UNTOLD:
        rules.append({"names": sorted(names & UNTOLD), "action": ALLOW, **kept})
    return rules


def _reported(base: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Every call that is answered with an errno is told; the listener gives the same answer."""
    rules: list[dict[str, Any]] = []
    errnos: dict[str, int] = {}
    named: set[str] = set()
    for rule in base.get("syscalls") or ():
        named |= set(rule["names"])
        if rule["action"] != ERRNO:
            rules.append(dict(rule))
            continue
        number = rule.get("errnoRet", EPERM)
        # A listener has one answer for a call: with two, the second stays the kernel's.
        told = {
            name for name in rule["names"] if name not in UNTOLD and errnos.setdefault(name, number) == number
        }
        if told:
            kept = {"args": rule["args"]} if rule.get("args") else {}
            rules.append({"names": sorted(told), "action": NOTIFY, **kept})
        if rest := set(rule["names"]) - told:
            rules.append({**rule, "names": sorted(rest)})
    if base["defaultAction"] == ERRNO:
        number = base.get("defaultErrnoRet", EPERM)
        others = sorted(NAMES - named - UNTOLD)
        errnos |= dict.fromkeys(others, number)
        rules.append({"names": others, "action": NOTIFY})
    return rules, {name: number for name, number in errnos.items() if number != EPERM}


def minimal(recording: Mapping[str, Any], calls: Iterable[str]) -> dict[str, Any]:
    """A profile that allows what was called, and what runtimes need to start a container.

    It never allows what the recorded filter did not: rules with arguments, and answers other than
    EPERM, are those of the filter that was recorded under.

    Args:
        recording: OCI `linux.seccomp` of the recorded container, made by `telling`.
        calls: names of what was called.
    """
    base = [(rule, set(rule["names"])) for rule in recording.get("syscalls") or ()]
    allowed = {name for rule, names in base if rule["action"] in (NOTIFY, ALLOW) for name in names}
    denied = {
        name
        for rule, names in base
        if rule["action"] not in (NOTIFY, ALLOW) and not rule.get("args")
        for name in names
    }
    wanted = ({*calls, *RUNTIME_CALLS} & allowed) - denied
    rules: list[dict[str, Any]] = []
    by_argument: set[str] = set()
    for rule, names in base:
        if rule["action"] in (NOTIFY, ALLOW):
            if rule.get("args") and names & wanted:
                by_argument |= names & wanted
                rules.append({"names": sorted(names & wanted), "action": ALLOW, "args": rule["args"]})
        elif rule.get("args"):
            if names & wanted:
                rules.append({**rule, "names": sorted(names & wanted)})
        elif rule["action"] != ERRNO or rule.get("errnoRet", EPERM) != EPERM:
            rules.append(dict(rule))
    plain = sorted(wanted - by_argument)
    profile: dict[str, Any] = {"defaultAction": ERRNO, "defaultErrnoRet": EPERM}
    if recording.get("architectures"):
        profile["architectures"] = list(recording["architectures"])
    profile["syscalls"] = [{"names": plain, "action": ALLOW}, *rules]
    return profile
