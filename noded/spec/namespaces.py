"""Namespaces of a container (runtime-spec `linux.namespaces`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from noded.model.host import CgroupMode, HostFacts
from noded.model.pod import IDMapping, NamespaceMode, NamespaceOptions, PodConfig, UserNamespace
from noded.spec.inputs import NamespacePaths


def user_namespace(pod: PodConfig) -> UserNamespace | None:
    """The pod's own user namespace, None when it uses the node's."""
    userns = pod.namespaces.userns
    return userns if userns is not None and userns.mode is NamespaceMode.POD else None


def pid_mode(pod: PodConfig, container: NamespaceOptions) -> NamespaceMode:
    """How a container's PID namespace comes about.

    The sandbox decides what "the pod's" namespace is: where it is the node's, POD means NODE,
    where the sandbox has none to share, POD means a namespace of the container's own. A container
    can always ask for more isolation, never for less (`noded.spec.validate`).
    """
    if container.pid is NamespaceMode.POD:
        return pod.namespaces.pid
    return container.pid


def container_namespaces(
    pod: PodConfig,
    container: NamespaceOptions,
    paths: NamespacePaths,
    host: HostFacts,
    *,
    privileged: bool,
) -> list[dict[str, Any]]:
    """The list in a fixed order. A type that is absent is shared with the node."""
    mode = pid_mode(pod, container)
    if mode is NamespaceMode.NODE:
        pid = []
    elif mode is NamespaceMode.CONTAINER:
        pid = [{"type": "pid"}]
    else:
        pid = [_joined("pid", paths.pid)]
    return [*pid, *_pod_namespaces(pod, paths), *_own_namespaces(pod, paths, host, privileged=privileged)]


def infra_namespaces(pod: PodConfig, paths: NamespacePaths, host: HostFacts) -> list[dict[str, Any]]:
    """Of a sandbox's init: a new PID namespace, unless the pod uses the node's."""
    pid = [] if pod.namespaces.pid is NamespaceMode.NODE else [{"type": "pid"}]
    return [*pid, *_pod_namespaces(pod, paths), *_own_namespaces(pod, paths, host, privileged=False)]


def has_uts(namespaces: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a host name may be set without renaming the node."""
    return any(entry["type"] == "uts" for entry in namespaces)


def _pod_namespaces(pod: PodConfig, paths: NamespacePaths) -> Iterator[dict[str, Any]]:
    if pod.namespaces.network is not NamespaceMode.NODE:
        yield _joined("network", paths.net)
        # A pod on the node's network answers to the node's name: both share the UTS namespace.
        yield _joined("uts", paths.uts)
    if pod.namespaces.ipc is not NamespaceMode.NODE:
        yield _joined("ipc", paths.ipc)


def _own_namespaces(
    pod: PodConfig, paths: NamespacePaths, host: HostFacts, *, privileged: bool
) -> Iterator[dict[str, Any]]:
    yield {"type": "mount"}
    # On v1 the container's cgroups are bind-mounted, which hides the rest without a namespace.
    if host.cgroup_mode is CgroupMode.V2 and not privileged:
        yield {"type": "cgroup"}
    if user_namespace(pod) is not None:
        yield _joined("user", paths.user)


def id_mappings(pod: PodConfig) -> dict[str, Any]:
    """`uidMappings` and `gidMappings`, empty without a user namespace.

    They are written for a namespace that is joined by path too: runtimes need them to map the
    owners of files that they create.
    """
    userns = user_namespace(pod)
    if userns is None:
        return {}
    return {"uidMappings": oci_mappings(userns.uids), "gidMappings": oci_mappings(userns.gids)}


def oci_mappings(mappings: Iterable[IDMapping]) -> list[dict[str, int]]:
    return [
        {"containerID": entry.container_id, "hostID": entry.host_id, "size": entry.length}
        for entry in mappings
    ]


def mapped(mappings: Iterable[IDMapping], container_id: int) -> bool:
    """Whether an id inside the namespace means anything outside."""
    return any(0 <= container_id - entry.container_id < entry.length for entry in mappings)


def _joined(kind: str, path: str | None) -> dict[str, Any]:
    return {"type": kind, "path": path} if path is not None else {"type": kind}
