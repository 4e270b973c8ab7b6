"""Tells a running irqbalance which CPUs it must leave alone, by its socket, as irqbalance-ui does.

The list that it is told replaces that of its configuration until it restarts. So what it reports as banned is
kept in it. It reports a list only once it has acted on it: whoever adds must not count on the last one.
Spec: irqbalance(1), irqbalance-ui(1).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import structlog

from noded.host.interrupts import parse_mask
from noded.model.cpus import format_cpus

log = structlog.get_logger(__name__)

_ANSWER_SECONDS = 2.0
_MOST_BYTES = 1 << 20
_MOST_CPUS = 8192


def ban(directory: Path, cpus: Collection[int]) -> None:
    """Have no interrupts put on these CPUs. Nothing happens where no irqbalance runs. Blocks.

    Args:
        directory: /run/irqbalance.
        cpus: all that noded keeps free of interrupts, also those of earlier calls.
    """
    for path in _sockets(directory):
        _tell(path, _banned(path) | frozenset(cpus))


def allow(directory: Path, cpus: Collection[int], still: Collection[int]) -> None:
    """Let these CPUs have interrupts again, but for those that noded still keeps free of them. Blocks."""
    for path in _sockets(directory):
        _tell(path, _banned(path) - frozenset(cpus) | frozenset(still))


def banned(directory: Path) -> frozenset[int]:
    """The CPUs that a running irqbalance leaves alone now. Blocks."""
    return frozenset().union(*(_banned(path) for path in _sockets(directory)))


def _sockets(directory: Path) -> list[Path]:
    return sorted(directory.glob("irqbalance*.sock"))


def _banned(path: Path) -> frozenset[int]:
    words = _ask(path, "setup").split()
    if "BANNED" not in words[:-1]:
        return frozenset()
    with suppress(ValueError):
        return frozenset(cpu for cpu in parse_mask(words[words.index("BANNED") + 1]) if cpu < _MOST_CPUS)
    return frozenset()


def _tell(path: Path, cpus: Collection[int]) -> None:
    _ask(path, f"settings cpus {format_cpus(cpus) or 'NULL'}")


def _ask(path: Path, text: str) -> str:
    """What it answers; "" and a line in the log when it does not. It checks who asks: root."""
    credentials = struct.pack("iII", os.getpid(), os.geteuid(), os.getegid())
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(str(path))
            connection.sendmsg([text.encode()], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials)])
            while len(answer) < _MOST_BYTES and (part := connection.recv(65536)):
                answer += part
    except (ConnectionRefusedError, FileNotFoundError):  # of one that has ended
        return ""
    except OSError as error:
        log.warning("irqbalance not told of quiet CPUs", socket=str(path), error=str(error))
    return answer.decode("ascii", "replace")
