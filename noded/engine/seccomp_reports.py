"""The report files of seccomp listeners: what was called, and what of that has been told already."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from noded.host import syscall_names


def read_report(path: Path) -> dict[str, int]:
    """Counts by name, summed over architectures; none when nothing was reported.

    Raises: OSError, ValueError when it says nothing that can be understood.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path.name} is no report")
    calls: dict[str, int] = {}
    for key, count in data.items():
        arch, _, number = key.partition(":")
        name = syscall_names.name_of(int(arch), int(number))
        calls[name] = calls.get(name, 0) + int(count)
    return calls


def read_told(path: Path) -> dict[str, int]:
    """What was told already, by this daemon or one before it; nothing when that cannot be known."""
    try:
        found = json.loads(path.read_bytes())
        return {str(name): int(count) for name, count in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def write_told(path: Path, told: Mapping[str, int]) -> None:
    """Remember what was told, for a daemon that comes after this one. On a tmpfs: nothing needs a sync."""
    temporary = path.with_name(f"{path.name}.new")
    with suppress(OSError):  # then a daemon after this one tells them once more
        temporary.write_text(json.dumps(told), encoding="ascii")
        temporary.rename(path)


def answers_by_number(errnos: Mapping[str, int], architectures: Sequence[str]) -> dict[str, int]:
    """Errnos by "ARCH:NUMBER", as the holder is given them, from errnos by name; "" is that of all others."""
    numbers = {"": 1}  # EPERM
    for architecture in architectures:
        arch = syscall_names.arch_of(architecture)
        for name, errno in errnos.items():
            number = syscall_names.number_of(arch, name) if arch else None
            if number is not None:
                numbers[f"{arch}:{number}"] = errno
    return numbers
