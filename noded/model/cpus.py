"""Lists of CPUs as the kernel writes them: `0-3,7` (cpuset(7), "List format")."""

from __future__ import annotations

import re
from collections.abc import Iterable

from noded.errors import InvalidArgument

_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*", re.ASCII)
_MOST = 8192  # CONFIG_NR_CPUS of the largest kernels


def parse_cpus(text: str, field: str) -> frozenset[int]:
    """The CPUs of a list, "" = none. Raises: InvalidArgument naming `field`."""
    if not text.strip():
        return frozenset()
    if not _LIST.fullmatch(text.strip()):
        raise InvalidArgument(f"{field}: {text!r} is not a list of CPUs like 0-3,7")
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high < _MOST:
            raise InvalidArgument(f"{field}: {part!r} in {text!r} is no range of CPUs")
        found.update(range(low, high + 1))
    return frozenset(found)


def format_cpus(cpus: Iterable[int]) -> str:
    """The list of some CPUs, in its shortest form."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{low}-{high}" if high > low else str(low) for low, high in ranges)
