"""Everything a spec is made of, as plain frozen data gathered by the engine beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from noded.model.container import ContainerConfig, Mount
from noded.model.host import HostFacts
from noded.model.image import ImageConfig
from noded.model.pod import PodConfig
from noded.model.runtime import RuntimeFeatures
from noded.spec.seccomp.annotations import NotifyMode


class Built(NamedTuple):
    """A piece of a spec, and what an operator should know about it (one sentence each)."""

    value: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResolvedUser:
    """The identity of a container's process.

    `additional_gids` is sorted, without duplicates and contains `gid`: a process that lacked its
    primary group there could give the group up and so pass a negative group permission.
    """

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    username: str = ""


@dataclass(frozen=True, slots=True)
class ResolvedMount:
    """A CRI mount whose source exists.

    Args:
        mount: what the client asked.
        source: absolute path without symlinks: the host path, or the root (or sub path) of a
            mounted image for an image volume.
        parent: the mount point that holds `source`, for error messages.
        parent_shared: that mount is in a peer group ("shared:" in /proc/self/mountinfo).
        parent_slave: that mount receives from a peer group ("master:").
    """

    mount: Mount
    source: str
    parent: str = "/"
    parent_shared: bool = False
    parent_slave: bool = False


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """A VOLUME of the image and the host directory that backs it (already filled)."""

    container_path: str
    source: str


@dataclass(frozen=True, slots=True)
class NodeMount:
    """A read-only bind mount that the client did not ask for by a mount.

    Args:
        source: absolute path on the host.
        origin: what asked for it: an annotation, or a key of the configuration.
    """

    container_path: str
    source: str
    origin: str


@dataclass(frozen=True, slots=True)
class ResolvedDevice:
    """One device node to make inside the container.

    Args:
        type: "c" or "b".
        mode: permission bits only.
        permissions: of the device cgroup, a subset of "rwm"; "" means "rwm".
    """

    container_path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    permissions: str = "rwm"


@dataclass(frozen=True, slots=True)
class NamespacePaths:
    """Files of namespaces to join; None = not pinned (a new one, unless the mode is NODE)."""

    net: str | None = None
    ipc: str | None = None
    uts: str | None = None
    user: str | None = None
    pid: str | None = None


@dataclass(frozen=True, slots=True)
class PodFiles:
    """Host paths of what all containers of a pod share; None = not provided.

    `localtime` is a TZif file for /etc/localtime (the `timezone` setting).
    """

    resolv_conf: str | None = None
    hostname: str | None = None
    hosts: str | None = None
    shm: str | None = None
    localtime: str | None = None


@dataclass(frozen=True, slots=True)
class Rlimit:
    """A resource limit, `type` as in getrlimit(2): RLIMIT_NOFILE..."""

    type: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class SpecPolicy:
    """What the node's administrator decides about specs.

    Args:
        default_capabilities: CAP_ names that a container has without asking.
        rlimits: limits of every container's process; () = those of the daemon.
        pids_limit: of each container; 0 = unlimited, None = do not set.
        default_seccomp: a checked profile for RuntimeDefault, None = the built-in one.
        privileged_seccomp: a checked profile for privileged containers, None = they have no filter.
        apparmor_profile: profile for RuntimeDefault, "" = none is loaded.
        environment: variables below those of image and client.
        annotations: of the runtime handler, below the user's allowed ones.
        allowed_annotations: globs (fnmatch) of user annotations that reach the runtime.
        device_ownership_from_security_context: device nodes belong to runAsUser/runAsGroup.
        privileged_without_host_devices: privileged containers get only devices they ask for.
        cgroup_writable: /sys/fs/cgroup is writable (cgroup v2 only).
        umask: of the process, None = inherited from the runtime.
        base: what lies under the generated spec (`noded.spec.base`).
        exec_cpu_affinity: "first" = commands of exec start on the first of the container's CPUs.
        infra_cpus: list of the CPUs of pods' init tasks, "" = all.
        shared_cpus: list of the CPUs that this container gets beside its own, "" = none.
        minimum_memory_bytes: smallest memory limit that is accepted; 0 = no guard.
    """

    default_capabilities: tuple[str, ...] = (
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
        "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL",
    )  # fmt: skip
    rlimits: tuple[Rlimit, ...] = ()
    pids_limit: int | None = None
    default_seccomp: Mapping[str, Any] | None = None
    privileged_seccomp: Mapping[str, Any] | None = None
    apparmor_profile: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    allowed_annotations: tuple[str, ...] = ()
    device_ownership_from_security_context: bool = False
    privileged_without_host_devices: bool = False
    cgroup_writable: bool = False
    umask: int | None = None
    base: Mapping[str, Any] | None = None
    exec_cpu_affinity: str = ""
    infra_cpus: str = ""
    shared_cpus: str = ""
    minimum_memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ContainerInputs:
    """One container to make.

    Args:
        rootfs: absolute path of the root directory.
        cgroups_path: OCI cgroupsPath in the driver's syntax.
        hostname: what `hostname` prints in the pod (the node's with host networking).
        host_devices: every device of the node; used for privileged containers only.
        seccomp_profile: a checked profile that replaces the one the client's choice names: the
            contents of a Localhost profile, or the one that an annotation names for a container
            without a choice; None for the others.
        block_io: limits of its class, as `linux.resources.blockIO`; None = without a class.
        rdt_class: its class of cache and memory bandwidth, "" = none.
        seccomp_mode, seccomp_listener: what is to be told of the container's system calls, and the
            socket that gets the filter's descriptor; None = nothing.
        process_label, mount_label: SELinux contexts, "" = none.
    """

    pod: PodConfig
    container: ContainerConfig
    image: ImageConfig
    user: ResolvedUser
    host: HostFacts
    features: RuntimeFeatures
    sandbox_id: str
    container_id: str
    rootfs: str
    cgroups_path: str
    policy: SpecPolicy = SpecPolicy()
    namespaces: NamespacePaths = NamespacePaths()
    files: PodFiles = PodFiles()
    mounts: tuple[ResolvedMount, ...] = ()
    volumes: tuple[ImageVolume, ...] = ()
    node_mounts: tuple[NodeMount, ...] = ()
    devices: tuple[ResolvedDevice, ...] = ()
    host_devices: tuple[ResolvedDevice, ...] = ()
    hostname: str = ""
    log_path: str = ""
    stop_signal: str = ""
    block_io: Mapping[str, Any] | None = None
    rdt_class: str = ""
    seccomp_profile: Mapping[str, Any] | None = None
    seccomp_mode: NotifyMode | None = None
    seccomp_listener: str = ""
    process_label: str = ""
    mount_label: str = ""

    @property
    def privileged(self) -> bool:
        return self.container.security.privileged


@dataclass(frozen=True, slots=True)
class InfraInputs:
    """The init task of a sandbox: it holds the shared PID namespace and reaps its orphans.

    Args:
        rootfs: an empty directory of this sandbox; mount points are made in it.
        init: absolute path of a static init program (catatonit) on the host.
    """

    pod: PodConfig
    host: HostFacts
    features: RuntimeFeatures
    sandbox_id: str
    rootfs: str
    init: str
    cgroups_path: str
    policy: SpecPolicy = SpecPolicy()
    namespaces: NamespacePaths = NamespacePaths()
    hostname: str = ""
    log_directory: str = ""
    process_label: str = ""
    mount_label: str = ""
