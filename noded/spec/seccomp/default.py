"""The built-in profile, made for a machine and a set of capabilities."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from noded.spec.seccomp.architectures import architectures, machine
from noded.spec.seccomp.calls import ALLOWED, DENIED, ENOSYS, EPERM, WITH_CAPABILITY, Group

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
_EQUAL = "SCMP_CMP_EQ"
_MASKED = "SCMP_CMP_MASKED_EQ"

_NAMESPACE_FLAGS = {
    "CLONE_NEWNS": 0x00020000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
_CLONE_NEWTIME = 0x00000080  # for unshare only: clone(2) reads these bits as the exit signal
_LOW_32_BITS = 0xFFFFFFFF

_AF_ALG = 38
_AF_VSOCK = 40
_EAFNOSUPPORT = 97
# Every family 0..47 but those two, as (bits that count, their value): the kernel reads the argument
# as an int, so a comparison of all 64 bits could be passed by setting a high one.
_FAMILIES = (
    (0xFFFFFFE0, 0),  # 0..31
    (0xFFFFFFFC, 32),
    (0xFFFFFFFE, 36),
    (0xFFFFFFFF, 39),
    (0xFFFFFFFF, 41),
    (0xFFFFFFFE, 42),
    (0xFFFFFFFC, 44),
)

_PER_LINUX32 = 0x0008
_UNAME26 = 0x0020000
_ADDR_NO_RANDOMIZE = 0x0040000
_PER_QUERY = 0xFFFFFFFF


def default_profile(architecture: str, capabilities: Iterable[str]) -> dict[str, Any]:
    """The profile that RuntimeDefault means, as OCI `linux.seccomp`.

    A call that `calls` knows and keeps out gets EPERM, as if a right were missing. A call that
    nobody has classified yet gets ENOSYS, as on an older kernel: C libraries probe new calls and
    fall back on ENOSYS only. Runtimes that do not know `defaultErrnoRet` answer EPERM.

    Args:
        architecture: machine name, `x86_64`, `aarch64`... or Go's names.
        capabilities: CAP_ names that the container has.
    """
    built = _built(architecture, frozenset(capabilities))
    return {**built, "syscalls": [_copy(rule) for rule in built["syscalls"]]}


@lru_cache(maxsize=64)
def _built(architecture: str, held: frozenset[str]) -> dict[str, Any]:
    here = machine(architecture)
    inside = [group for group in (*ALLOWED, *WITH_CAPABILITY) if _on(group, here) and _granted(group, held)]
    outside = [group for group in (*WITH_CAPABILITY, *DENIED) if _on(group, here) and group not in inside]
    rules: list[dict[str, Any]] = [_rule(_names(inside), ALLOW)]
    for errno in sorted({group.errno for group in outside}):
        rules.append(_rule(_names(group for group in outside if group.errno == errno), ERRNO, errno=errno))
    rules += clone_rules(held, here)
    rules += socket_rules()
    rules += personality_rules()
    profile: dict[str, Any] = {"defaultAction": ERRNO, "defaultErrnoRet": ENOSYS}
    if names := architectures(architecture):
        profile["architectures"] = list(names)
    profile["syscalls"] = rules
    return profile


def clone_rules(capabilities: frozenset[str], machine: str) -> list[dict[str, Any]]:
    """New namespaces need CAP_SYS_ADMIN.

    A user namespace gives a process every capability over new objects of the kernel, which is how
    most local exploits begin. clone3(2) passes its flags in memory that a filter cannot read; on
    ENOSYS C libraries use clone(2).
    """
    if "CAP_SYS_ADMIN" in capabilities:
        return [_rule(["clone", "clone3", "unshare"], ALLOW)]
    flags = 1 if machine == "s390x" else 0  # clone(2): s390 has the first two arguments swapped
    every = sum(_NAMESPACE_FLAGS.values())
    rules = [
        _rule(["clone"], ALLOW, _masked(flags, every, 0)),
        _rule(["unshare"], ALLOW, _masked(0, every | _CLONE_NEWTIME, 0)),
        _rule(["clone3"], ERRNO, errno=ENOSYS),
    ]
    for bit in _NAMESPACE_FLAGS.values():
        rules.append(_rule(["clone"], ERRNO, _masked(flags, bit, bit), errno=EPERM))
    for bit in (*_NAMESPACE_FLAGS.values(), _CLONE_NEWTIME):
        rules.append(_rule(["unshare"], ERRNO, _masked(0, bit, bit), errno=EPERM))
    return rules


def socket_rules() -> list[dict[str, Any]]:
    """All address families but two.

    AF_VSOCK talks to the hypervisor past every network namespace; AF_ALG offers the kernel's
    cryptography, which user space has in libraries, and keeps giving local exploits.
    """
    rules = [_rule(["socket"], ALLOW, _masked(0, mask, value)) for mask, value in _FAMILIES]
    for family in (_AF_ALG, _AF_VSOCK):
        rules.append(_rule(["socket"], ERRNO, _masked(0, _LOW_32_BITS, family), errno=_EAFNOSUPPORT))
    return rules


def personality_rules() -> list[dict[str, Any]]:
    """Asking, and the personalities that change only what uname(2) says.

    Others switch off protections of memory (setarch -R, READ_IMPLIES_EXEC).
    """
    harmless = (0, _PER_LINUX32, _UNAME26, _UNAME26 | _PER_LINUX32, _PER_QUERY)
    rules = [_rule(["personality"], ALLOW, _argument(0, value)) for value in harmless]
    rules.append(_rule(["personality"], ERRNO, _argument(0, _ADDR_NO_RANDOMIZE), errno=EPERM))
    return rules


def _copy(rule: dict[str, Any]) -> dict[str, Any]:
    copied = {**rule, "names": list(rule["names"])}
    if "args" in rule:
        copied["args"] = [dict(argument) for argument in rule["args"]]
    return copied


def _on(group: Group, machine: str) -> bool:
    return not group.machines or machine in group.machines


def _granted(group: Group, held: frozenset[str]) -> bool:
    return not group.capabilities or any(name in held for name in group.capabilities)


def _names(groups: Iterable[Group]) -> list[str]:
    return sorted({name for group in groups for name in group.names})


def _rule(
    names: list[str], action: str, argument: dict[str, Any] | None = None, *, errno: int | None = None
) -> dict[str, Any]:
    rule: dict[str, Any] = {"names": names, "action": action}
    if errno is not None:
        rule["errnoRet"] = errno
    if argument is not None:
        rule["args"] = [argument]
    return rule


def _argument(index: int, value: int) -> dict[str, Any]:
    return {"index": index, "value": value, "op": _EQUAL}


def _masked(index: int, mask: int, value: int) -> dict[str, Any]:
    """(argument & mask) == value; OCI calls the mask `value` and the value `valueTwo`."""
    return {"index": index, "value": mask, "valueTwo": value, "op": _MASKED}
