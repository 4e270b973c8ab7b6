"""Capabilities of a container's process (capabilities(7), runtime-spec `process.capabilities`)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from noded.errors import InvalidArgument
from noded.model.container import ContainerSecurity

# In kernel order (include/uapi/linux/capability.h): the position is the bit number.
KNOWN = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
        "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
        "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
        "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
        "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
        "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
    )
)  # fmt: skip
_KNOWN = frozenset(KNOWN)
_ALL = "ALL"


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The sets of a container, in kernel order.

    `granted` goes into the bounding, permitted and effective set: the kernel itself clears the
    last two when a process that is not root executes a program, so users need no case of their
    own. Only `ambient` ones survive that, for which they must be inheritable too.
    """

    granted: tuple[str, ...]
    ambient: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_oci(self) -> dict[str, list[str]]:
        sets = {name: list(self.granted) for name in ("bounding", "effective", "permitted")}
        # No inheritable set but for ambient ones: with one, a program with file capabilities
        # would gain them without being granted them (CVE-2022-24769).
        if self.ambient:
            sets["inheritable"] = list(self.ambient)
            sets["ambient"] = list(self.ambient)
        return sets


def canonical(name: str, field: str) -> str:
    """`net_admin`, `NET_ADMIN` and `CAP_NET_ADMIN` as the last; "ALL" stays.

    Raises: InvalidArgument naming the CRI field.
    """
    upper = name.upper()
    if upper in (_ALL, "CAP_ALL"):
        return _ALL
    if not upper.startswith("CAP_"):
        upper = f"CAP_{upper}"
    if upper not in _KNOWN:
        raise InvalidArgument(f"{field}: {name!r} is not a Linux capability")
    return upper


def container_capabilities(
    security: ContainerSecurity,
    defaults: Iterable[str],
    available: frozenset[str],
    *,
    user_namespace: bool,
    unknown: Iterable[str] = (),
) -> Capabilities:
    """The capabilities of a container.

    Args:
        defaults: CAP_ names of a container that asks for nothing.
        available: the daemon's own bounding set, which nobody can exceed.
        user_namespace: inside one, the kernel gives the first process every capability over the
            namespace, whatever the daemon has.
        unknown: CAP_ names that the runtime does not know, and would refuse.

    Order of rules, as both peers have it: add ALL, drop ALL, add names, drop names.
    """
    if user_namespace:
        available = _KNOWN
    add = _names(security.add_capabilities, "add")
    drop = _names(security.drop_capabilities, "drop")
    ambient = _names(security.add_ambient_capabilities, "add_ambient")
    named = (add | ambient) - {_ALL}
    if security.privileged or _ALL in add:
        granted = set(_KNOWN)
    else:
        granted = {canonical(name, "default_capabilities") for name in defaults}
    if not security.privileged:
        if _ALL in drop:
            granted = set()
        granted = (granted | named) - (drop - {_ALL})
    had = (granted & available).difference(unknown)
    # A default that the node lacks is its policy; who wants all wants what the runtime knows.
    asked = named if not security.privileged and _ALL not in add else set(_KNOWN)
    return Capabilities(
        granted=_ordered(had),
        ambient=_ordered(had if _ALL in ambient else had & ambient),
        warnings=(
            *_missing("the daemon's own capability bounding set lacks", asked & (granted - available)),
            *_missing("the runtime knows no", named & (granted & available).intersection(unknown)),
        ),
    )


def _missing(who: str, names: Iterable[str]) -> tuple[str, ...]:
    """Tell of what was asked for and cannot be had."""
    listed = ", ".join(_ordered(names))
    return (f"{who} {listed}: the container goes without",) if listed else ()


def _names(names: Iterable[str], which: str) -> set[str]:
    field = f"linux.security_context.capabilities.{which}_capabilities"
    return {canonical(name, field) for name in names}


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    wanted = set(names)
    return tuple(name for name in KNOWN if name in wanted)
