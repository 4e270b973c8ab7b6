"""What containerd and CRI-O write into the spec of a container that asks for nothing: facts, with their date.

Compared are fields that both sides decide by themselves; what a request decides is no difference of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from noded.spec.explain.explain import Explained
from noded.spec.explain.fields import fields
from noded.spec.explain.sources import Kind


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer.

    Args:
        version, source, read_on: which release the facts are of, where they stand, the date of reading.
        areas: starts of the names of fields that the facts are complete for.
        spec: the facts, as a spec with nothing else.
    """

    version: str
    source: str
    read_on: str
    areas: tuple[str, ...]
    spec: Mapping[str, Any]


_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
    "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
)  # fmt: skip
_SETS = dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES)
_SAFE = ("nosuid", "noexec", "nodev")
_PTS = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")


def _mount(path: str, kind: str, options: tuple[str, ...]) -> dict[str, Any]:
    return {"destination": path, "type": kind, "source": kind, "options": options}


_KERNEL_MOUNTS = (
    _mount("/proc", "proc", _SAFE),
    _mount("/dev", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
    _mount("/dev/pts", "devpts", _PTS),
    _mount("/dev/mqueue", "mqueue", _SAFE),
    _mount("/sys", "sysfs", (*_SAFE, "ro")),
)
_MOUNT_AREAS = tuple(f"mounts[{mount['destination']}]" for mount in _KERNEL_MOUNTS)
_PATHS = {
    "maskedPaths": (
        "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
        "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/powercap",
        "/sys/firmware",
    ),
    "readonlyPaths": ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"),
}  # fmt: skip
_NO_DEVICES = {"resources": {"devices": ({"allow": False, "access": "rwm"},)}}

PEERS: Mapping[str, Peer] = {
    "containerd": Peer(
        version="2.x",
        source="containerd/containerd pkg/oci/spec.go; its CRI plugin takes the rlimits out again",
        read_on="2026-11-22",
        areas=(
            "process.capabilities",
            "process.rlimits",
            "linux.maskedPaths",
            "linux.readonlyPaths",
            "linux.resources.devices[deny all]",
            *_MOUNT_AREAS,
        ),
        spec={
            "process": {"capabilities": _SETS},
            "mounts": _KERNEL_MOUNTS,
            "linux": {**_PATHS, **_NO_DEVICES},
        },
    ),
    "cri-o": Peer(
        version="1.x",
        source="crio.conf(5) default_capabilities and default_ulimits; "
        "opencontainers/runtime-tools generate/generate.go",
        read_on="2026-11-22",
        areas=(
            "process.capabilities",
            "process.rlimits",
            "linux.resources.devices[deny all]",
            *_MOUNT_AREAS,
        ),
        spec={"process": {"capabilities": _SETS}, "mounts": _KERNEL_MOUNTS, "linux": _NO_DEVICES},
    ),
}

# Whoever decides these decides with any runtime: the difference is not one between noded and the peer.
_THEIRS = (Kind.REQUEST, Kind.ANNOTATION, Kind.IMAGE)


def differences(peer: Peer, explained: Iterable[Explained]) -> dict[str, Any]:
    """What noded has and the peer has not, and the other way round, each with both values.

    A field that the peer has is told as missing also where the request took it away; `why` says by whom
    noded's value was decided.
    """
    theirs = fields(peer.spec)
    ours = {one.name: one for one in explained if one.name.startswith(peer.areas)}
    found = [
        {"name": name, "noded": one.value, "peer": theirs.get(name), "why": one.origin.kind.value}
        for name, one in ours.items()
        if one.origin.kind not in _THEIRS and theirs.get(name) != one.value
    ]
    found += [
        {"name": name, "noded": None, "peer": value, "why": ""}
        for name, value in theirs.items()
        if name not in ours
    ]
    return {
        "version": peer.version,
        "source": peer.source,
        "read_on": peer.read_on,
        "areas": list(peer.areas),
        "differences": found,
    }
