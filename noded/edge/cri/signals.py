"""The CRI `Signal` enumeration and the names that images and the OCI world use."""

from __future__ import annotations

import signal

from noded.errors import InvalidArgument
from noded.proto.runtime import v1

# SIGRTMIN and SIGRTMAX as the kernel counts them for programs with glibc: signal(7).
_REALTIME = {"SIGRTMIN": 34, "SIGRTMAX": 64}


def _display_name(member: v1.Signal) -> str:
    """`SIGRTMINPLUS3` is written `SIGRTMIN+3` everywhere else."""
    return member.name.replace("PLUS", "+").replace("MINUS", "-")


_NAMES = {member: _display_name(member) for member in v1.Signal if member is not v1.Signal.RUNTIME_DEFAULT}
_MEMBERS = {name: member for member, name in _NAMES.items()}


def _number(name: str) -> int | None:
    base = name[: len("SIGRTMIN")]
    if base in _REALTIME:
        return _REALTIME[base] + int(name[len(base) :] or 0)
    known = getattr(signal, name, None)
    return None if known is None else int(known)


# Backwards, so that of two names for one number the first wins: SIGABRT, not SIGIOT.
_NAMES_BY_NUMBER = {_number(name): name for name in reversed(_MEMBERS)}


def name_of(value: v1.Signal, path: str) -> str:
    """The signal's name, e.g. `SIGTERM` or `SIGRTMIN+3`; "" for RUNTIME_DEFAULT.

    Raises: InvalidArgument for a value that this version does not know.
    """
    if value == v1.Signal.RUNTIME_DEFAULT:
        return ""
    name = _NAMES.get(value)
    if name is None:
        raise InvalidArgument(f"{path}: unknown value {int(value)}")
    return name


def member_of(text: str) -> v1.Signal:
    """The enumeration value for a signal in any form that images use: `SIGTERM`, `term`, `15`.

    RUNTIME_DEFAULT for "" and for what CRI cannot name.
    """
    name = text.strip().upper()
    if name.isdecimal():
        name = _NAMES_BY_NUMBER.get(int(name), "")
    elif name and not name.startswith("SIG"):
        name = f"SIG{name}"
    return _MEMBERS.get(name, v1.Signal.RUNTIME_DEFAULT)
