"""The CRI `Signal` enumeration and the names that images and the OCI world use."""

from __future__ import annotations

from noded.errors import InvalidArgument
from noded.model.signals import signal_number
from noded.proto.runtime import v1


def _display_name(member: v1.Signal) -> str:
    """`SIGRTMINPLUS3` is written `SIGRTMIN+3` everywhere else."""
    return member.name.replace("PLUS", "+").replace("MINUS", "-")


_NAMES = {member: _display_name(member) for member in v1.Signal if member is not v1.Signal.RUNTIME_DEFAULT}
_MEMBERS = {name: member for member, name in _NAMES.items()}


# Backwards, so that of two names for one number the first wins: SIGABRT, not SIGIOT.
_NAMES_BY_NUMBER = {signal_number(name): name for name in reversed(_MEMBERS)}


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
