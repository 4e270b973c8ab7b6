"""What annotations ask of seccomp: a profile from a registry, and reports of system calls. Pure.

Each feature has three spellings: noded's, CRI-O's, and CRI-O's of before 1.34. An annotation counts only
if the runtime handler's `allowed_annotations` match its key; the others are passed over in silence, as
both peers do, since a pod may carry annotations for another node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig
from noded.model.pod import ProfileType

# Of one key, the first spelling that is there wins.
PROFILE_KEYS = (
    "seccomp-profile.noded.io",
    "seccomp-profile.crio.io",
    "seccomp-profile.kubernetes.cri-o.io",
)
ACTION_KEYS = (
    "seccomp-notifier-action.noded.io",
    "seccomp-notifier-action.crio.io",
    "io.kubernetes.cri-o.seccompNotifierAction",
)
RECORD_KEYS = ("seccomp-record.noded.io",)
_POD = "POD"


class NotifyMode(StrEnum):
    """Why a container's system calls are told to noded."""

    STOP = "stop"  # kill the container after it made a call that its profile keeps out
    LOG = "log"  # only say so
    RECORD = "record"  # note every call that it makes


@dataclass(frozen=True, slots=True)
class ProfileReference:
    """A profile in a registry, and the annotation that names it."""

    reference: str
    field: str


def profile_reference(
    pod: Mapping[str, str], image: Mapping[str, str], container: ContainerConfig, allowed: tuple[str, ...]
) -> ProfileReference | None:
    """The profile that annotations choose for a container, None when they choose none.

    The pod's word for the container comes first, then the pod's for all, then the image's: bare, for the
    container, for all. They fill a gap only: a container that asks for RuntimeDefault or Localhost gets
    that, and a privileged one has no filter.

    Args:
        pod, image: annotations of the pod, and of the image's manifest.
        allowed: the handler's `allowed_annotations`.

    Raises: InvalidArgument naming an annotation without a value.
    """
    security = container.security
    unconfined = security.seccomp is None or security.seccomp.type is ProfileType.UNCONFINED
    if security.privileged or not unconfined:
        return None
    for whose, given, suffixes in (
        ("pod", pod, (f"/{container.name}", f"/{_POD}")),
        ("image", image, ("", f"/{container.name}", f"/{_POD}")),
    ):
        for suffix in suffixes:
            found = _first(given, PROFILE_KEYS, suffix, allowed)
            if found is None:
                continue
            key, value = found
            if not value.strip():
                raise InvalidArgument(f"annotation {key} of the {whose} is empty: name an OCI artifact")
            return ProfileReference(value.strip(), f"annotation {key} of the {whose}")
    return None


def notify_mode(pod: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> NotifyMode | None:
    """What the pod's annotations want to know of a container's system calls.

    For one container with the suffix `/NAME`, for all of the pod with `/POD` or none.

    Raises: InvalidArgument naming an annotation with an unknown value, or two that exclude each other.
    """
    recording = _scoped(pod, RECORD_KEYS, name, allowed)
    if recording is not None and recording[1] not in ("true", "false"):
        raise InvalidArgument(f"annotation {recording[0]}: {recording[1]!r} is neither true nor false")
    action = _scoped(pod, ACTION_KEYS, name, allowed)
    if action is not None and action[1] not in (NotifyMode.STOP, NotifyMode.LOG):
        raise InvalidArgument(f"annotation {action[0]}: {action[1]!r} is unknown, use stop or log")
    if recording is None or recording[1] == "false":
        return NotifyMode(action[1]) if action is not None else None
    if action is not None:
        raise InvalidArgument(f"annotations {recording[0]} and {action[0]} exclude each other: remove one")
    return NotifyMode.RECORD


def _scoped(
    pod: Mapping[str, str], keys: tuple[str, ...], name: str, allowed: tuple[str, ...]
) -> tuple[str, str] | None:
    for suffix in (f"/{name}", f"/{_POD}", ""):
        found = _first(pod, keys, suffix, allowed)
        if found is not None:
            return found
    return None


def _first(
    annotations: Mapping[str, str], keys: tuple[str, ...], suffix: str, allowed: tuple[str, ...]
) -> tuple[str, str] | None:
    for key in keys:
        full = key + suffix
        if full in annotations and _is_allowed(full, key, allowed):
            return full, annotations[full]
    return None


def _is_allowed(full: str, key: str, patterns: tuple[str, ...]) -> bool:
    # Without the suffix too: that is how CRI-O's configurations name these annotations.
    return any(fnmatchcase(full, pattern) or fnmatchcase(key, pattern) for pattern in patterns)
