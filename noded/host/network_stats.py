"""Counters of the network devices of a pod (/proc/net/dev, proc(5))."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from noded.host import namespaces


@dataclass(frozen=True, slots=True)
class InterfaceStats:
    """Totals since the device was made."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def parse_net_dev(text: str) -> tuple[InterfaceStats, ...]:
    """Parse the file; a device name may hold colons, and the counters may follow without a space."""
    devices = []
    for line in text.splitlines()[2:]:
        name, _, counters = line.rpartition(":")
        values = [int(word) for word in counters.split()]
        if len(values) >= 12:
            devices.append(InterfaceStats(name.strip(), *values[0:4], *values[8:12]))
    return tuple(devices)


def read_interfaces(netns: Path) -> tuple[InterfaceStats, ...]:
    """Return all devices of a pinned network namespace, `lo` included. Blocks under a millisecond.

    Raises: NotFound when the pin is gone.
    """
    # /proc/net is the main thread's.
    text = namespaces.inside({"net": netns}, lambda: Path("/proc/thread-self/net/dev").read_text())
    return parse_net_dev(text)
