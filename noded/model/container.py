"""What a client asks of a container, as plain values (CRI `ContainerConfig`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from noded.model.pod import (
    GroupsPolicy,
    IDMapping,
    NamespaceOptions,
    Resources,
    SecurityProfile,
    SELinuxOptions,
)


class MountPropagation(IntEnum):
    """CRI `MountPropagation`."""

    PRIVATE = 0
    HOST_TO_CONTAINER = 1
    BIDIRECTIONAL = 2


@dataclass(frozen=True, slots=True, order=True)
class ContainerKey:
    """The identity that a client retries with: one live container per key."""

    sandbox_id: str
    name: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.name}#{self.attempt} in {self.sandbox_id[:12]}"


@dataclass(frozen=True, slots=True)
class Mount:
    """One CRI mount: a host path or an image, at `container_path`."""

    container_path: str
    host_path: str = ""
    readonly: bool = False
    selinux_relabel: bool = False
    propagation: MountPropagation = MountPropagation.PRIVATE
    uid_mappings: tuple[IDMapping, ...] = ()
    gid_mappings: tuple[IDMapping, ...] = ()
    recursive_read_only: bool = False
    image: str = ""
    image_sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Device:
    """CRI `Device`; permissions are letters of "rwm"."""

    container_path: str
    host_path: str
    permissions: str


@dataclass(frozen=True, slots=True)
class ContainerSecurity:
    """CRI `LinuxContainerSecurityContext`."""

    add_capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    add_ambient_capabilities: tuple[str, ...] = ()
    privileged: bool = False
    namespaces: NamespaceOptions = NamespaceOptions()
    selinux: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_username: str = ""
    readonly_rootfs: bool = False
    supplemental_groups: tuple[int, ...] = ()
    supplemental_groups_policy: GroupsPolicy = GroupsPolicy.MERGE
    no_new_privs: bool = False
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()
    seccomp: SecurityProfile | None = None
    apparmor: SecurityProfile | None = None


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """CRI `ContainerConfig` with its Linux part flattened in.

    `image` is what the client sent as `image.image` (usually an image ID),
    `user_specified_image` the reference a person wrote.
    """

    name: str
    attempt: int
    image: str
    user_specified_image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    envs: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    devices: tuple[Device, ...] = ()
    cdi_devices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    log_path: str = ""
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    resources: Resources | None = None
    security: ContainerSecurity = ContainerSecurity()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True)
class ContainerUser:
    """The identity a container's first process runs with, as reported in its status."""

    uid: int
    gid: int
    supplemental_groups: tuple[int, ...] = ()
