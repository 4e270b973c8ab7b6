"""Counters of the network devices of a pod (/proc/net/dev, proc(5))."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from noded.host import libc, namespaces


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


def read_many(pins: Sequence[Path]) -> list[tuple[InterfaceStats, ...] | None]:
    """Return the devices of each pinned network namespace, None for a pin that is gone.

    One fresh thread enters them one after the other, some 50 us each, so it depends on no process of
    the pods, whose ids may belong to others by now. Blocks.
    """
    if not pins:
        return []
    return namespaces.in_fresh_thread(lambda: [_read_entered(pin) for pin in pins], "noded-netdev")


def _read_entered(pin: Path) -> tuple[InterfaceStats, ...] | None:
    try:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        libc.call("setns", ctypes.c_int(fd), ctypes.c_int(namespaces.KINDS["net"]))
        with open("/proc/thread-self/net/dev", "rb", buffering=0) as file:
            return parse_net_dev(file.readall().decode("latin-1"))
    except (OSError, ValueError):  # an empty file: unpinned by now
        return None
    finally:
        os.close(fd)
