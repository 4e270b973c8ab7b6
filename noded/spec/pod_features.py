"""What the annotations of a pod ask for the pod as a whole."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig
from noded.model.pod import NamespaceMode, PodConfig
from noded.spec.feature_keys import POD_FEATURES, asked, not_allowed, not_supported
from noded.spec.inputs import NodeMount

_VOLUME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")  # RFC 1123 label, as Kubernetes names volumes
_SIZE = re.compile(r"([0-9]+)([kmgt]?)(?:i?b?)", re.IGNORECASE)
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_EMPTY_DIR = "/volumes/kubernetes.io~empty-dir/"
_LOGS = "logs"
_LINKS = {"link-logs": POD_FEATURES["link-logs"]}


@dataclass(frozen=True, slots=True)
class PodFeatures:
    """What a pod asks for.

    Args:
        shm_bytes: size of /dev/shm, None = the usual one.
        log_volume: name of the emptyDir volume in which containers see the pod's logs, "" = none.
        warnings: about annotations that do nothing, one sentence each.
    """

    shm_bytes: int | None = None
    log_volume: str = ""
    warnings: tuple[str, ...] = ()


def pod_features(pod: PodConfig, patterns: tuple[str, ...]) -> PodFeatures:
    """The features of a pod.

    Args:
        patterns: the `allowed_annotations` that count for it.

    Raises: InvalidArgument naming an allowed annotation with a bad value, or one whose pod lacks the user
        namespace that it asks for: to run it without would leave it less confined than its author thinks.
    """
    found = asked(POD_FEATURES, pod.annotations, "", patterns)
    userns = pod.namespaces.userns
    confined = userns is not None and userns.mode is NamespaceMode.POD
    found.of("userns-mode", lambda text: _check_userns(text, confined=confined), None)
    return PodFeatures(
        shm_bytes=found.of("shm-size", _bytes, None),
        log_volume=found.of("link-logs", _volume, ""),
        warnings=(*not_allowed(found.ignored), *not_supported(pod.annotations)),
    )


def log_mounts(pod: PodConfig, container: ContainerConfig, volume: str) -> tuple[NodeMount, ...]:
    """The pod's log directory, read-only as `logs` in each place where a container has this emptyDir."""
    if not volume or not pod.log_directory:
        return ()
    return tuple(
        NodeMount(posixpath.join(mount.container_path, _LOGS), pod.log_directory, "link-logs")
        for mount in container.mounts
        if mount.host_path.rstrip("/").endswith(f"{_EMPTY_DIR}{volume}")
    )


def log_path(pod: PodConfig, container: ContainerConfig) -> str:
    """The absolute path of a container's log, "" when the client asked for none."""
    if not pod.log_directory or not container.log_path:
        return ""
    return str(PurePosixPath(pod.log_directory) / container.log_path)


def log_link(pod: PodConfig, log_path: str, container_id: str) -> tuple[str, str] | None:
    """The link by which a container finds its log among the pod's, by its id: where it is, and its target.

    None when no annotation asks for logs, whether it is allowed or not.
    """
    if not log_path or not asked(_LINKS, pod.annotations, "", ("*",)).granted:
        return None
    return posixpath.join(pod.log_directory, container_id), posixpath.relpath(log_path, pod.log_directory)


def pod_resources(pod: PodConfig) -> dict[str, Mapping[str, object]]:
    """Overhead and resources of a pod as runtimes with a VM read them, by the annotation's old key."""
    found: dict[str, Mapping[str, object]] = {}
    for key, resources in (("PodLinuxOverhead", pod.overhead), ("PodLinuxResources", pod.resources)):
        if resources is None:
            continue
        values: dict[str, object] = {
            "cpu_period": resources.cpu_period_us,
            "cpu_quota": resources.cpu_quota_us,
            "cpu_shares": resources.cpu_shares,
            "memory_limit_in_bytes": resources.memory_limit_bytes,
            "oom_score_adj": resources.oom_score_adj,
            "cpuset_cpus": resources.cpuset_cpus,
            "cpuset_mems": resources.cpuset_mems,
            "memory_swap_limit_in_bytes": resources.memory_swap_limit_bytes,
        }
        found[key] = {name: value for name, value in values.items() if value}
    return found


def _check_userns(text: str, *, confined: bool) -> None:
    mode = text.partition(":")[0]
    if mode not in ("auto", "private", "host"):
        raise InvalidArgument(f"{text!r} is none of auto, private and host")
    if mode != "host" and not confined:
        raise InvalidArgument("the pod has no user namespace: set hostUsers: false in its spec")


def _bytes(text: str) -> int | None:
    found = _SIZE.fullmatch(text.strip())
    size = int(found[1]) << _UNITS[found[2].lower()] if found else 0
    if not 0 < size < 2**63:
        raise InvalidArgument(f"{text!r} is no size above 0, write for example 128Mi")
    return size


def _volume(text: str) -> str:
    if not _VOLUME.fullmatch(text):
        raise InvalidArgument(f"{text!r} is not the name of an emptyDir volume")
    return text
