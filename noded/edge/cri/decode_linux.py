"""From CRI messages to the values that pods and containers have in common."""

from __future__ import annotations

from noded.edge.cri.fields import enum
from noded.errors import InvalidArgument
from noded.model.pod import (
    HugepageLimit,
    IDMapping,
    NamespaceMode,
    NamespaceOptions,
    ProfileType,
    Resources,
    SecurityProfile,
    SELinuxOptions,
    UserNamespace,
)
from noded.proto.runtime import v1


def namespaces(message: v1.NamespaceOption | None, path: str) -> NamespaceOptions:
    if message is None:
        return NamespaceOptions()
    return NamespaceOptions(
        network=enum(NamespaceMode, message.network, f"{path}.network"),
        pid=enum(NamespaceMode, message.pid, f"{path}.pid"),
        ipc=enum(NamespaceMode, message.ipc, f"{path}.ipc"),
        target_id=message.target_id,
        userns=_user_namespace(message.userns_options, f"{path}.userns_options"),
    )


def _user_namespace(message: v1.UserNamespace | None, path: str) -> UserNamespace | None:
    if message is None:
        return None
    return UserNamespace(
        mode=enum(NamespaceMode, message.mode, f"{path}.mode"),
        uids=id_mappings(message.uids),
        gids=id_mappings(message.gids),
    )


def id_mappings(messages: list[v1.IdMapping]) -> tuple[IDMapping, ...]:
    return tuple(IDMapping(item.host_id, item.container_id, item.length) for item in messages)


def selinux(message: v1.SeLinuxOption | None) -> SELinuxOptions | None:
    if message is None:
        return None
    return SELinuxOptions(message.user, message.role, message.type, message.level)


def resources(message: v1.LinuxContainerResources | None) -> Resources | None:
    if message is None:
        return None
    return Resources(
        cpu_period_us=message.cpu_period,
        cpu_quota_us=message.cpu_quota,
        cpu_shares=message.cpu_shares,
        memory_limit_bytes=message.memory_limit_in_bytes,
        memory_swap_limit_bytes=message.memory_swap_limit_in_bytes,
        oom_score_adj=message.oom_score_adj,
        cpuset_cpus=message.cpuset_cpus,
        cpuset_mems=message.cpuset_mems,
        hugepage_limits=tuple(HugepageLimit(item.page_size, item.limit) for item in message.hugepage_limits),
        unified=dict(message.unified),
    )


def profile(
    message: v1.SecurityProfile | None, path: str, deprecated: str, deprecated_path: str
) -> SecurityProfile | None:
    """A security profile from its message or, without one, from the string that it replaced."""
    if message is None:
        return _profile_of_text(deprecated, deprecated_path)
    kind = enum(ProfileType, message.profile_type, f"{path}.profile_type")
    return SecurityProfile(kind, message.localhost_ref)


def _profile_of_text(text: str, path: str) -> SecurityProfile | None:
    """The string form of kubelets before 1.25: runtime/default, unconfined, localhost/REF."""
    if not text:
        return None
    if text in ("runtime/default", "docker/default"):
        return SecurityProfile(ProfileType.RUNTIME_DEFAULT)
    if text == "unconfined":
        return SecurityProfile(ProfileType.UNCONFINED)
    prefix, _, reference = text.partition("/")
    if prefix == "localhost" and reference:
        return SecurityProfile(ProfileType.LOCALHOST, reference)
    raise InvalidArgument(
        f"{path}: {text!r} is none of runtime/default, docker/default, unconfined and localhost/PROFILE"
    )
