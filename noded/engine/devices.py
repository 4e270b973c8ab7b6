"""Device nodes of the host, as a container's spec wants them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace

from noded.errors import FailedPrecondition
from noded.model.container import Device
from noded.spec.inputs import ResolvedDevice

# Made anew for every container by the runtime or by the spec's own mounts.
_NOT_PASSED = frozenset({"/dev/console", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/.lxc"})


def resolve_devices(devices: Iterable[Device]) -> tuple[ResolvedDevice, ...]:
    """Look up the nodes that a client asked for; a directory stands for all nodes below it.

    Raises: FailedPrecondition naming a path that is no device.
    """
    return tuple(node for device in devices for node in _resolve(device))


def _resolve(device: Device) -> Iterator[ResolvedDevice]:
    real, what = os.path.realpath(device.host_path), f"devices[].host_path {device.host_path}"
    if os.path.isdir(real):
        yield from _below(real, device.container_path, device.permissions)
    else:
        yield replace(
            device_at(real, what),
            container_path=device.container_path,
            permissions=device.permissions or "rwm",
        )


def device_at(path: str, what: str) -> ResolvedDevice:
    """The device node at a path of the host, links followed.

    Args:
        what: its name in the message.

    Raises: FailedPrecondition when there is none.
    """
    try:
        info = os.stat(path)
    except OSError as error:
        raise FailedPrecondition(f"{what}: {error.strerror}") from error
    node = _node(info, path, "rwm")
    if node is None:
        raise FailedPrecondition(f"{what} is not a device node")
    return node


def host_devices() -> tuple[ResolvedDevice, ...]:
    """Every device of the node, for privileged containers."""
    return tuple(_below("/dev", "/dev", "rwm"))


def _below(directory: str, container_path: str, permissions: str) -> Iterator[ResolvedDevice]:
    with os.scandir(directory) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.path in _NOT_PASSED or entry.is_symlink():
                continue
            inside = f"{container_path}/{entry.name}"
            if entry.is_dir():
                yield from _below(entry.path, inside, permissions)
                continue
            try:
                node = _node(entry.stat(follow_symlinks=False), inside, permissions)
            except FileNotFoundError:
                continue  # unplugged meanwhile
            if node is not None:
                yield node


def _node(info: os.stat_result, container_path: str, permissions: str) -> ResolvedDevice | None:
    if stat.S_ISCHR(info.st_mode):
        kind = "c"
    elif stat.S_ISBLK(info.st_mode):
        kind = "b"
    else:
        return None
    return ResolvedDevice(
        container_path=container_path,
        type=kind,
        major=os.major(info.st_rdev),
        minor=os.minor(info.st_rdev),
        mode=stat.S_IMODE(info.st_mode),
        uid=info.st_uid,
        gid=info.st_gid,
        permissions=permissions or "rwm",
    )
