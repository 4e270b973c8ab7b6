"""What a client asks of a pod sandbox, as plain values.

`PodConfig` mirrors CRI `PodSandboxConfig` field by field (proto/cri.proto); an absent submessage
is `None`, never a zero value, so that "runAsUser absent" is not "uid 0".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum


class NamespaceMode(IntEnum):
    """CRI `NamespaceMode`."""

    POD = 0
    CONTAINER = 1
    NODE = 2
    TARGET = 3


class ProfileType(IntEnum):
    """CRI `SecurityProfile.ProfileType`."""

    RUNTIME_DEFAULT = 0
    UNCONFINED = 1
    LOCALHOST = 2


class GroupsPolicy(IntEnum):
    """CRI `SupplementalGroupsPolicy`."""

    MERGE = 0
    STRICT = 1


class PortProtocol(IntEnum):
    """CRI `Protocol` of a port mapping."""

    TCP = 0
    UDP = 1
    SCTP = 2


@dataclass(frozen=True, slots=True, order=True)
class SandboxKey:
    """The identity that a client retries with: one live sandbox per key."""

    namespace: str
    name: str
    uid: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}/{self.uid}#{self.attempt}"


@dataclass(frozen=True, slots=True)
class IDMapping:
    """`length` ids from `container_id` inside are those from `host_id` outside."""

    host_id: int
    container_id: int
    length: int


@dataclass(frozen=True, slots=True)
class UserNamespace:
    """CRI `UserNamespace`; mappings only with POD."""

    mode: NamespaceMode = NamespaceMode.POD
    uids: tuple[IDMapping, ...] = ()
    gids: tuple[IDMapping, ...] = ()


@dataclass(frozen=True, slots=True)
class NamespaceOptions:
    """CRI `NamespaceOption`; `target_id` is a container, only with TARGET."""

    network: NamespaceMode = NamespaceMode.POD
    pid: NamespaceMode = NamespaceMode.POD
    ipc: NamespaceMode = NamespaceMode.POD
    target_id: str = ""
    userns: UserNamespace | None = None


@dataclass(frozen=True, slots=True)
class SecurityProfile:
    """A seccomp or AppArmor choice; `localhost_ref` only with LOCALHOST."""

    type: ProfileType = ProfileType.RUNTIME_DEFAULT
    localhost_ref: str = ""


@dataclass(frozen=True, slots=True)
class SELinuxOptions:
    """CRI `SELinuxOption`; "" = not set."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


@dataclass(frozen=True, slots=True)
class HugepageLimit:
    """CRI `HugepageLimit`; the size as the kernel writes it, e.g. "2MB"."""

    page_size: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class Resources:
    """CRI `LinuxContainerResources`; 0 and "" mean "not set"."""

    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_shares: int = 0
    memory_limit_bytes: int = 0
    memory_swap_limit_bytes: int = 0
    oom_score_adj: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    hugepage_limits: tuple[HugepageLimit, ...] = ()
    unified: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DNSConfig:
    """CRI `DNSConfig`; without any of it the pod has the node's."""

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PortMapping:
    """CRI `PortMapping`; host_port 0 = none, host_ip "" = every address of the node."""

    protocol: PortProtocol
    container_port: int
    host_port: int
    host_ip: str = ""


@dataclass(frozen=True, slots=True)
class SandboxSecurity:
    """CRI `LinuxSandboxSecurityContext`."""

    namespaces: NamespaceOptions = NamespaceOptions()
    selinux: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: GroupsPolicy = GroupsPolicy.MERGE
    privileged: bool = False
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


@dataclass(frozen=True, slots=True)
class PodConfig:
    """CRI `PodSandboxConfig` with its Linux part flattened in."""

    key: SandboxKey
    hostname: str = ""
    log_directory: str = ""
    dns: DNSConfig | None = None
    port_mappings: tuple[PortMapping, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    sysctls: Mapping[str, str] = field(default_factory=dict)
    overhead: Resources | None = None
    resources: Resources | None = None
    security: SandboxSecurity = SandboxSecurity()

    @property
    def namespaces(self) -> NamespaceOptions:
        return self.security.namespaces

    @property
    def host_network(self) -> bool:
        return self.namespaces.network is NamespaceMode.NODE
