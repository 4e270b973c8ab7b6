"""Frees addresses that the host-local plugin lost: reserved for nobody, so that no DEL finds them.

host-local keeps one file per address and writes its owner into it after it has created it. Killed
in between, or cut off by a power loss, it leaves an empty file, and the address is gone for ever.
Under host-local's own lock nobody is in between, so an empty file is certainly such a loss,
whoever made it. Files with an owner are never touched.

Layout: github.com/containernetworking/plugins, plugins/ipam/host-local/backend/disk.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

log = structlog.get_logger(__name__)

_DEFAULT_DATA_DIR = "/var/lib/cni/networks"
_LOCK_SECONDS = 5.0  # host-local holds its lock for milliseconds; a longer wait means that it hangs


async def free_lost_addresses(document: Mapping[str, Any]) -> None:
    """Remove the empty reservations of a network whose plugins use host-local.

    Best effort: what cannot be looked at now is logged, and looked at another time.

    Cancellation: safe.
    """
    for directory in _directories(document):
        with trio.move_on_after(_LOCK_SECONDS) as waiting:
            # An abandoned thread still does what is right when it gets the lock at last.
            await trio.to_thread.run_sync(_free, directory, abandon_on_cancel=True)
        if waiting.cancelled_caught:
            log.warning("host_local_locked", directory=str(directory), waited_seconds=_LOCK_SECONDS)


def _directories(document: Mapping[str, Any]) -> Iterator[Path]:
    for plugin in document["plugins"]:
        ipam = plugin.get("ipam")
        if isinstance(ipam, Mapping) and ipam.get("type") == "host-local":
            data_dir = ipam.get("dataDir") or _DEFAULT_DATA_DIR
            if isinstance(data_dir, str) and data_dir.startswith("/"):
                yield Path(data_dir) / document["name"]


def _free(directory: Path) -> None:
    try:
        if not any(_is_lost(entry) for entry in directory.iterdir()):
            return  # the usual case needs no lock
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lost = [entry for entry in directory.iterdir() if _is_lost(entry)]
            for entry in lost:
                entry.unlink()
                log.warning("host_local_address_freed", file=str(entry), reason="reserved for nobody")
        finally:
            os.close(lock)
    except FileNotFoundError:
        return  # host-local has never run for this network
    except OSError as error:
        log.warning("host_local_not_checked", directory=str(directory), error=str(error))


def _is_lost(entry: Path) -> bool:
    try:
        ipaddress.ip_address(entry.name)
        status = entry.lstat()
    except (ValueError, FileNotFoundError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == 0
