"""What the annotations of a pod ask for one of its containers.

A feature counts only when `allowed_annotations` match it (`noded.spec.feature_keys`): most of them give a
pod more than the Kubernetes API would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.container import ContainerConfig, Device
from noded.model.cpus import format_cpus, parse_cpus
from noded.model.host import HostFacts
from noded.model.pod import Resources
from noded.model.signals import signal_number
from noded.spec.feature_keys import CONTAINER_FEATURES, asked, enabled, flag, not_allowed
from noded.spec.inputs import SpecPolicy
from noded.spec.resources import supports_unified

_MODES = 0o777


@dataclass(frozen=True, slots=True)
class Features:
    """What the annotations of a pod ask for one of its containers.

    Args:
        umask: of the process, None = the node's.
        cgroup_writable: /sys/fs/cgroup is writable (cgroup v2).
        unified: cgroup v2 files and what to write there.
        devices: more device nodes.
        cpu_shared: the container gets the node's shared CPUs beside its own.
        fips_disabled: the container does not see that the node is in FIPS mode.
        stop_signal: name or number, "" = none.
        ignored: annotations that ask for a feature and are not allowed, sorted.
    """

    umask: int | None = None
    cgroup_writable: bool = False
    unified: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[Device, ...] = ()
    cpu_shared: bool = False
    fips_disabled: bool = False
    stop_signal: str = ""
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
    found = asked(CONTAINER_FEATURES, annotations, container, patterns)
    if not found.granted:
        return Features(ignored=found.ignored)
    return Features(
        umask=found.of("umask", _umask, None),
        cgroup_writable=found.of("cgroup2-mount-hierarchy-rw", flag, False),
        unified=found.of("unified-cgroup", _unified, {}),
        devices=found.of("devices", lambda text: _devices(text, allowed_devices), ()),
        cpu_shared=found.of("cpu-shared", enabled, False),
        fips_disabled=found.of("disable-fips", flag, False),
        stop_signal=found.of("stop-signal", _signal, ""),
        ignored=found.ignored,
    )


def with_features(
    container: ContainerConfig,
    policy: SpecPolicy,
    found: Features,
    host: HostFacts,
    shared_cpuset: str = "",
) -> tuple[ContainerConfig, SpecPolicy, tuple[str, ...]]:
    """Request and policy as if they had said what the annotations say, and what could not be granted.

    Args:
        shared_cpuset: the node's shared CPUs, "" = there are none.

    Raises: InvalidArgument, FailedPrecondition for CPUs that cannot be shared.
    """
    warnings = not_allowed(found.ignored)
    if found.unified and not supports_unified(host):
        warnings += ("annotation unified-cgroup is ignored: the node does not use cgroup v2",)
    elif found.unified:
        resources = container.resources or Resources()
        unified = {**resources.unified, **found.unified}
        container = replace(container, resources=replace(resources, unified=unified))
    if found.devices:
        container = replace(container, devices=(*container.devices, *found.devices))
    if found.cpu_shared:
        container = _with_shared_cpus(container, shared_cpuset)
        policy = replace(policy, shared_cpus=shared_cpuset)
    return (
        container,
        replace(
            policy,
            umask=policy.umask if found.umask is None else found.umask,
            cgroup_writable=policy.cgroup_writable or found.cgroup_writable,
        ),
        warnings,
    )


def _with_shared_cpus(container: ContainerConfig, shared_cpuset: str) -> ContainerConfig:
    """The container on its own and the shared CPUs, and told of both in the variables that CRI-O sets.

    Its quota stays: it may use the shared CPUs, not more time.
    """
    resources = container.resources or Resources()
    own = parse_cpus(resources.cpuset_cpus, "linux.resources.cpuset_cpus")
    if not own:
        raise InvalidArgument(
            "annotation cpu-shared: the container has no CPUs of its own, "
            "give it whole CPUs in a Guaranteed pod"
        )
    shared = parse_cpus(shared_cpuset, "shared_cpuset")
    if not shared:
        raise FailedPrecondition("annotation cpu-shared: this node shares no CPUs, set shared_cpuset")
    told = (("OPENSHIFT_ISOLATED_CPUS", format_cpus(own)), ("OPENSHIFT_SHARED_CPUS", format_cpus(shared)))
    return replace(
        container,
        resources=replace(resources, cpuset_cpus=format_cpus(own | shared)),
        envs=(*container.envs, *told),
    )


def _umask(text: str) -> int | None:
    try:
        value = int(text, 8)
    except ValueError:
        value = -1
    if not 0 <= value <= _MODES:
        raise InvalidArgument(f"{text!r} is not an octal umask from 0 to 0777")
    return value


def _signal(text: str) -> str:
    if signal_number(text) is None:
        raise InvalidArgument(f"{text!r} is not a signal")
    return text


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
