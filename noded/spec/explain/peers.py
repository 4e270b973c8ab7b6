"""What containerd and CRI-O write into the spec of a container that asks for nothing: facts, with their date.

Compared are fields that both sides decide by themselves; what a request decides is no difference of theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noded.spec.explain.explain import Explained
from noded.spec.explain.fields import fields
from noded.spec.explain.sources import Kind
from noded.spec.seccomp import peers as calls


@dataclass(frozen=True, slots=True)
class Peer:
    """One peer.

    Args:
        version, source, read_on: which release the facts are of, where they stand, the date of reading.
        areas: starts of the names of fields that the facts are complete for.
        spec: the facts, as a spec with nothing else.
        pod_sysctls: what it sets in the namespaces of each pod.
    """

    version: str
    source: str
    read_on: str
    areas: tuple[str, ...]
    spec: Mapping[str, Any]
    pod_sysctls: Mapping[str, str] = field(default_factory=dict)


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
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NO_DEVICES = {"resources": {"devices": ({"allow": False, "access": "rwm"},)}}

_AREAS = (
    "process.capabilities",
    "process.rlimits",
    "process.env[PATH]",
    # Both mask what the request lists: a client that lists nothing gets nothing masked.
    "linux.maskedPaths",
    "linux.readonlyPaths",
    # Runtimes make the usual devices; sysctls are in the spec of the pod's own container.
    "linux.devices",
    "linux.resources.devices",
    "linux.sysctl",
    *_MOUNT_AREAS,
)
_SPEC = {
    "process": {"capabilities": _SETS, "env": (_PATH,)},
    "mounts": _KERNEL_MOUNTS,
    "linux": _NO_DEVICES,
}

PEERS: Mapping[str, Peer] = {
    "containerd": Peer(
        version="2.x",
        source="containerd/containerd pkg/oci/spec.go as internal/cri/server/container_create.go changes it",
        read_on="2026-11-22",
        areas=_AREAS,
        spec=_SPEC,
        pod_sysctls={
            "net.ipv4.ip_unprivileged_port_start": "0",
            "net.ipv4.ping_group_range": "0 2147483647",
        },
    ),
    "cri-o": Peer(
        version="1.x",
        source="crio.conf(5) default_capabilities, default_ulimits and default_sysctls; "
        "opencontainers/runtime-tools generate/generate.go",
        read_on="2026-11-22",
        areas=_AREAS,
        spec=_SPEC,
    ),
}

# Whoever decides these decides with any runtime: the difference is not one between noded and the peer.
_THEIRS = (Kind.REQUEST, Kind.ANNOTATION, Kind.IMAGE)


# With these the seccomp profile is not the built-in one.
_PROFILE_OF_OTHERS = (Kind.PROFILE, Kind.HANDLER, Kind.ANNOTATION)
_CALLS = "linux.seccomp.syscalls"


def differences(
    name: str, explained: Collection[Explained], pod_sysctls: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What noded has and the peer has not, and the other way round, each with both values.

    A field that the peer has is told as missing also where the request took it away; `why` says by whom
    noded's value was decided, `reason` why the two differ.

    Args:
        pod_sysctls: of the container's pod, None = they are not compared.
    """
    peer = PEERS[name]
    theirs = fields(peer.spec)
    ours = {one.name: one for one in explained if one.name.startswith(peer.areas) and one.value != []}
    found = [
        _difference(field_, one.value, theirs.get(field_), one.origin.kind.value)
        for field_, one in ours.items()
        if one.origin.kind not in _THEIRS and theirs.get(field_) != one.value
    ]
    found += [_difference(field_, None, value) for field_, value in theirs.items() if field_ not in ours]
    if _has_own_profile(explained):
        found += [
            _difference(f"{_CALLS}[{call}]", own, other, Kind.DEFAULT.value, calls.REASONS[call])
            for call, (own, other) in calls.differences(name).items()
        ]
    if pod_sysctls is not None:
        keys = sorted({*pod_sysctls, *peer.pod_sysctls})
        found += [
            _difference(f"sysctls of the pod[{key}]", pod_sysctls.get(key), peer.pod_sysctls.get(key))
            for key in keys
            if pod_sysctls.get(key) != peer.pod_sysctls.get(key)
        ]
    return {
        "version": peer.version,
        "source": peer.source,
        "read_on": peer.read_on,
        "areas": [*peer.areas, _CALLS, *(("sysctls of the pod",) if pod_sysctls is not None else ())],
        "differences": found,
    }


def _difference(name: str, own: Any, other: Any, why: str = "", reason: str = "") -> dict[str, Any]:
    found = {"name": name, "noded": own, "peer": other, "why": why}
    return found | {"reason": reason} if reason else found


def _has_own_profile(explained: Iterable[Explained]) -> bool:
    """Whether the container has noded's built-in seccomp profile."""
    calls = [one for one in explained if one.name.startswith(_CALLS)]
    kinds = {source.kind for one in calls for source in (one.origin, *one.also)}
    return bool(calls) and not kinds.intersection(_PROFILE_OF_OTHERS)
