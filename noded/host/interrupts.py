"""Which CPUs serve the interrupts of devices (core-api/irq/irq-affinity.rst of the kernel)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_AFFINITY = "smp_affinity"


def parse_mask(text: str) -> frozenset[int]:
    """The CPUs of a mask: groups of 32 bits in hexadecimal digits."""
    bits = int(text.strip().replace(",", ""), 16)
    return frozenset(cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1)


def format_mask(cpus: Iterable[int]) -> str:
    """A mask as the kernel reads it."""
    digits = f"{sum(1 << cpu for cpu in cpus):x}"
    first = len(digits) % 8
    groups = [digits[:first]] if first else []
    groups += [digits[start : start + 8] for start in range(first, len(digits), 8)]
    return ",".join(groups)


class Moved(NamedTuple):
    """An interrupt: the CPUs that served it, and those that are to."""

    old: frozenset[int]
    new: frozenset[int]


def to_move(directory: Path, away: Collection[int], others: Collection[int]) -> dict[str, Moved]:
    """The interrupts that some of the CPUs `away` serve now, by number.

    Args:
        directory: /proc/irq.
        others: who serves those that no other CPU serves now, as where irqbalance chose one CPU for each.
    """
    found = {}
    for path in directory.glob(f"[0-9]*/{_AFFINITY}"):
        with suppress(OSError, ValueError):  # one that goes away meanwhile
            old = parse_mask(path.read_text())
            if old & frozenset(away):
                found[path.parent.name] = Moved(old, old - frozenset(away) or frozenset(others))
    return found


def move(directory: Path, moved: Mapping[str, Moved]) -> None:
    """Move interrupts. Those that the kernel binds to a CPU itself stay: it refuses."""
    for number, one in moved.items():
        with suppress(OSError):
            (directory / number / _AFFINITY).write_text(format_mask(one.new))


def move_back(directory: Path, moved: Mapping[str, Moved]) -> None:
    """Let the CPUs serve again that did; idempotent.

    What others have changed since stays: of an interrupt that was moved as a whole all of it, of the others
    what is not of these CPUs.
    """
    for number, one in moved.items():
        path = directory / number / _AFFINITY
        with suppress(OSError, ValueError):  # one that is gone
            current = parse_mask(path.read_text())
            wanted = one.old if current == one.new else current
            if one.old & one.new:
                wanted |= one.old - one.new
            if wanted != current:
                path.write_text(format_mask(wanted))
