"""Annotations of a pod that ask for a feature, in the spellings of CRI-O (new and old) and noded's own.

A feature counts only when the runtime handler's `allowed_annotations` match the annotation: most of them
give a pod more than the Kubernetes API would. The annotation of one container (`KEY/CONTAINER`) wins over
the pod's (`KEY`), noded's spelling over CRI-O's new one, that over the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig, Device
from noded.model.host import HostFacts
from noded.model.pod import Resources
from noded.spec.annotations import allowed
from noded.spec.inputs import SpecPolicy
from noded.spec.resources import supports_unified

T = TypeVar("T")

# Feature -> CRI-O's old key; the others are FEATURE.noded.io and FEATURE.crio.io.
_OLD_KEYS = {
    "cgroup2-mount-hierarchy-rw": "io.kubernetes.cri-o.cgroup2-mount-hierarchy-rw",
    "devices": "io.kubernetes.cri-o.Devices",
    "umask": "io.kubernetes.cri-o.umask",
    "unified-cgroup": "io.kubernetes.cri-o.UnifiedCgroup",
}
_MODES = 0o777


@dataclass(frozen=True, slots=True)
class Features:
    """What the annotations of a pod ask for one of its containers.

    Args:
        umask: of the process, None = the node's.
        cgroup_writable: /sys/fs/cgroup is writable (cgroup v2).
        unified: cgroup v2 files and what to write there.
        devices: more device nodes.
        ignored: annotations that ask for a feature and are not allowed, sorted.
    """

    umask: int | None = None
    cgroup_writable: bool = False
    unified: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    ignored: tuple[str, ...] = ()


def container_features(
    annotations: Mapping[str, str],
    container: str,
    patterns: tuple[str, ...],
    allowed_devices: tuple[str, ...],
) -> Features:
    """The features of one container.

    Args:
        annotations: of the pod.
        container: its name.
        patterns: the handler's `allowed_annotations`.
        allowed_devices: host paths that the annotation may name.

    Raises: InvalidArgument naming an allowed annotation with a bad value.
    """
    asked = {
        key: annotations[key]
        for feature in _OLD_KEYS
        for key in _keys(feature, container)
        if key in annotations
    }
    if not asked:
        return Features()
    granted = allowed(asked, patterns)

    def of(feature: str, parse: Callable[[str], T], default: T) -> T:
        for key in _keys(feature, container):
            if key in granted:
                try:
                    return parse(granted[key])
                except InvalidArgument as error:
                    raise InvalidArgument(f"annotation {key}: {error}") from None
        return default

    return Features(
        umask=of("umask", _umask, None),
        cgroup_writable=of("cgroup2-mount-hierarchy-rw", _flag, False),
        unified=of("unified-cgroup", _unified, {}),
        devices=of("devices", lambda text: _devices(text, allowed_devices), ()),
        ignored=tuple(sorted(asked.keys() - granted.keys())),
    )


def with_features(
    container: ContainerConfig, policy: SpecPolicy, found: Features, host: HostFacts
) -> tuple[ContainerConfig, SpecPolicy, tuple[str, ...]]:
    """Request and policy as if they had said what the annotations say, and what could not be granted."""
    warnings = tuple(
        f"annotation {key} is ignored: the runtime handler's allowed_annotations do not match it"
        for key in found.ignored
    )
    if found.unified and not supports_unified(host):
        warnings += ("annotation unified-cgroup is ignored: the node does not use cgroup v2",)
    elif found.unified:
        resources = container.resources or Resources()
        unified = {**resources.unified, **found.unified}
        container = replace(container, resources=replace(resources, unified=unified))
    if found.devices:
        container = replace(container, devices=(*container.devices, *found.devices))
    return (
        container,
        replace(
            policy,
            umask=policy.umask if found.umask is None else found.umask,
            cgroup_writable=policy.cgroup_writable or found.cgroup_writable,
        ),
        warnings,
    )


def _keys(feature: str, container: str) -> Iterator[str]:
    """The annotations that may hold a feature, the strongest first."""
    old = _OLD_KEYS[feature]
    bases = (f"{feature}.noded.io", f"{feature}.crio.io", old)
    yield from (f"{base}/{container}" for base in bases)
    yield f"{old}.{container}"
    yield from bases


def _umask(text: str) -> int | None:
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= _MODES:
        raise InvalidArgument(f"{text!r} is not an octal umask from 0 to 0777")
    return value


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise InvalidArgument(f"{text!r} is neither true nor false")
    return text == "true"


def _unified(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = entry.partition("=")
        # A file of the container's own cgroup and nothing else.
        if not equals or not name or name.startswith(".") or "/" in name or "\0" in entry:
            raise InvalidArgument(f"{entry!r} is not FILE=VALUE with the name of a cgroup v2 file")
        values[name] = value
    return values


def _devices(text: str, permitted: tuple[str, ...]) -> tuple[Device, ...]:
    devices = []
    for entry in filter(None, (part.strip() for part in text.split(","))):
        host, inside, permissions, *rest = [*entry.split(":"), "", ""][: max(3, entry.count(":") + 1)]
        if rest:
            raise InvalidArgument(f"{entry!r} is not HOST_PATH[:CONTAINER_PATH[:PERMISSIONS]]")
        if inside and not inside.startswith("/") and not permissions:
            inside, permissions = "", inside  # HOST_PATH:PERMISSIONS
        for path in (host, inside or host):
            if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
                raise InvalidArgument(f"{path!r} in {entry!r} must be an absolute path without '..'")
        if not set(permissions) <= set("rwm"):
            raise InvalidArgument(f"{permissions!r} in {entry!r} is not made of r, w and m")
        if host not in permitted:
            known = ", ".join(permitted) or "none"
            raise InvalidArgument(f"{host} is not among the node's allowed_devices ({known})")
        devices.append(Device(inside or host, host, permissions or "rwm"))
    return tuple(devices)
