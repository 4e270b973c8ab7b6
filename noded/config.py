"""The daemon's configuration as frozen values.

Every field's comment is its documentation: unit and effect. `noded.settings` reads TOML files into
these classes, reports unknown keys and bad values with file and line, and prints the comments in
`noded config default`. A comment stands behind its field or in the lines above it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from noded.model.paths import ROOT, SOCKET, STATE
from noded.options import AtLeast

Seconds = Annotated[float, AtLeast(0)]
StorageDriver = Literal["overlay", "fuse-overlayfs", "btrfs", "vfs"]


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """`[network]`: CNI."""

    conf_dir: Path = Path("/etc/cni/net.d")  # watched; the first file in name order is the pod network
    # directories with CNI plugins, searched in this order
    bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
    default_network: str = ""  # use the network of this name instead of the first file
    conf_template: str = ""  # file with a conflist template, rendered when kubelet announces the podCIDR
    add_timeout_seconds: Seconds = 220.0  # budget of one CNI ADD of a whole list
    del_timeout_seconds: Seconds = 60.0  # budget of one CNI DEL of a whole list
    del_grace_seconds: Seconds = 300.0  # how long a failing DEL blocks Stop and Remove of a sandbox
    gc_period_seconds: Seconds = 600.0  # between two CNI GC runs; 0 = never


@dataclass(frozen=True, slots=True)
class ImagesConfig:
    """`[images]`: registries and the local store."""

    # directory of image blobs and layers, for example on a disk of its own; "" = the daemon's root. After a
    # change images are pulled again, so empty the node first
    root: Path | None = None
    registries_conf: Path = Path("/etc/containers/registries.conf")  # containers-registries.conf(5), v2
    # directory with containerd's HOST/hosts.toml, "" = none; a host that has one there is pulled from
    # as it says, blocking and short names excepted, and not as registries.conf says
    config_path: Path | None = None
    auth_file: Path | None = None  # containers-auth.json(5) used when kubelet sends no credential, "" = none
    # directory with NAMESPACE.json, each as auth_file for the pods of one namespace, asked before it and for
    # mirrors too; CRI-O's credential provider for the kubelet may write there
    auth_dir: Path | None = Path("/etc/noded/auth")
    # containers-policy.json(5); "" = /etc/containers/policy.json, and without one all images are accepted
    signature_policy: Path | None = None
    # directory with NAMESPACE.json, each the policy for the pods of one namespace
    signature_policy_dir: Path | None = Path("/etc/noded/policies")
    # directory of containers-registries.d(5), which says where signatures are
    signature_registries_dir: Path = Path("/etc/containers/registries.d")
    # directory with private keys (RSA or elliptic curve; PEM or DER) that open images which were encrypted
    # for them, as `skopeo copy --encryption-key jwe:` does; "" = encrypted images are refused
    decryption_keys_path: Path | None = Path("/etc/noded/keys")
    max_parallel_downloads: Annotated[int, AtLeast(1)] = 6  # blobs per pull
    # layers unpacked at once; 0 = as many as CPUs, at least 4, but of those in zstd no more than CPUs
    unpack_workers: Annotated[int, AtLeast(0)] = 0
    stall_timeout_seconds: Seconds = 60.0  # a download without a byte for so long is dropped and resumed
    keep_blobs: bool = True  # keep compressed layers after unpacking (save and repair need them)
    pinned: tuple[str, ...] = ()  # references or globs that garbage collection must not remove
    # directories with images of `noded images export-store`, for example on a network file system; they are
    # used in place and never written to
    additional_stores: tuple[Path, ...] = ()
    # how new containers get their root file system: overlay (the kernel's), fuse-overlayfs (the program),
    # btrfs (snapshots, `root` must be on btrfs), vfs (copies, works everywhere); others keep theirs
    storage_driver: StorageDriver = "overlay"
    # what each container may write, 0 = no limit; the pod annotations noded.io/disk-quota and
    # noded.io/disk-quota.CONTAINER lower it, and lift it where allowed_annotations match them. Needs btrfs
    # with quotas, or xfs or ext4 with prjquota
    container_quota_bytes: Annotated[int, AtLeast(0)] = 0


@dataclass(frozen=True, slots=True)
class StreamingConfig:
    """`[streaming]`: the server behind exec, attach and port-forward."""

    address: str = "127.0.0.1"  # IP address to listen on; kubelet must reach it
    port: Annotated[int, AtLeast(0)] = 0  # 0 = any free port
    idle_timeout_seconds: Seconds = 14400.0  # a stream without a byte for so long is ended; 0 = never
    tls_cert: Path | None = None  # PEM certificate chain, "" = no TLS; read anew when it changes
    tls_key: Path | None = None  # PEM key of tls_cert
    tls_client_ca: Path | None = None  # PEM CA whose clients are let in, "" = any client
    tls_min_version: Literal["1.2", "1.3"] = "1.2"  # oldest TLS version, 1.2 or 1.3


@dataclass(frozen=True, slots=True)
class MetricsConfig:
    """`[metrics]`: the daemon's own metrics for Prometheus."""

    listen: str = ""  # HOST:PORT or path of a unix socket that serves /metrics, "" = off


@dataclass(frozen=True, slots=True)
class CompatConfig:
    """`[compat]`: what clients need that were made for another runtime."""

    # kubelet's cAdvisor takes labels and network statistics of pods from CRI-O only. With this, noded answers
    # it in CRI-O's place; new pods get CRI-O's cgroup names and an init process. Restart kubelet afterwards
    cadvisor: bool = False
    cadvisor_socket: Path = Path("/var/run/crio/crio.sock")  # where cAdvisor looks, and nowhere else


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """`[checkpoint]`: containers saved and restored with CRIU."""

    enable: bool = True  # answer CheckpointContainer; its archive has all memory of the container in it
    # make containers from checkpoint archives and images. What is restored has the user, the capabilities
    # and the system calls that the checkpoint says, whatever the pod may have: trust all your images
    restore: bool = False


@dataclass(frozen=True, slots=True)
class TracingConfig:
    """`[tracing]`: OpenTelemetry. Timelines (`noded timeline`) need nothing of it."""

    endpoint: str = ""  # OTLP/HTTP receiver, such as http://127.0.0.1:4318; "" = off
    # of a million calls whose client sends no trace of its own, how many are traced; a client's decision
    # is followed
    sampling_rate_per_million: Annotated[int, AtLeast(0)] = 0


@dataclass(frozen=True, slots=True)
class NriConfig:
    """`[nri]`: Node Resource Interface, plugins that see pods and containers and adjust them."""

    enable: bool = True  # whether there are plugins at all
    socket: Path = Path("/var/run/nri/nri.sock")  # where plugins connect
    disable_connections: bool = False  # only plugins of plugin_path, no socket
    plugin_path: Path = Path("/opt/nri/plugins")  # plugins NN-NAME that noded starts
    plugin_config_path: Path = Path("/etc/nri/conf.d")  # their NN-NAME.conf or NAME.conf
    # a plugin that has not registered by then, or not taken in by then what exists, is closed
    registration_timeout_seconds: Seconds = 5.0
    request_timeout_seconds: Seconds = 2.0  # a plugin that has not answered by then is closed
    required_plugins: tuple[str, ...] = ()  # names of plugins without which no container is created
    reject_hooks: bool = False  # refuse containers into which plugins put OCI hooks
    reject_seccomp: bool = False  # refuse containers whose seccomp policy plugins change
    reject_namespaces: bool = False  # refuse containers whose namespaces plugins change
    reject_sysctls: bool = False  # refuse containers whose sysctls plugins change


@dataclass(frozen=True, slots=True)
class WorkloadResources:
    """What containers of a workload get instead of what the kubelet asks; 0 and "" leave that."""

    cpushares: Annotated[int, AtLeast(0)] = 0  # relative weight of CPU time
    cpuset: str = ""  # CPUs, such as "0-3,7"
    cpuquota: Annotated[int, AtLeast(0)] = 0  # microseconds of CPU time in each period
    cpuperiod: Annotated[int, AtLeast(0)] = 0  # microseconds
    cpulimit: Annotated[int, AtLeast(0)] = 0  # thousandths of a CPU, instead of cpuquota


@dataclass(frozen=True, slots=True)
class WorkloadConfig:
    """`[workloads.NAME]`: pods with an annotation of this key are of this kind."""

    activation_annotation: str  # the key, whatever its value
    # a pod gives one container other resources by PREFIX/CONTAINER = '{"cpushares": 512}'; "" = it may not
    annotation_prefix: str = ""
    allowed_annotations: tuple[str, ...] = ()  # globs, beside those of the pod's runtime handler
    resources: WorkloadResources = WorkloadResources()


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """`[runtimes.HANDLER]`: one runtime handler. Other keys belong to its type's options."""

    name: str  # what a RuntimeClass names in `handler`
    type: str  # runtime type of a plugin, see `noded plugins list`
    options: Mapping[str, Any] = field(default_factory=dict)  # the type's own keys
    default_annotations: Mapping[str, str] = field(default_factory=dict)  # added to every OCI spec
    allowed_annotations: tuple[str, ...] = ()  # globs of pod annotations for the runtime
    create_timeout_seconds: Seconds = 240.0  # budget of one sandbox or container creation
    privileged_without_host_devices: bool = False  # privileged containers get only devices they name
    cgroup_writable: bool = False  # /sys/fs/cgroup is writable in containers (cgroup v2 only)
    # seccomp profile of containers that want the runtime's default, an absolute path; "" = the built-in one
    seccomp_profile: str = ""
    # seccomp profile of privileged containers, an absolute path, whatever they ask for; "" = none
    privileged_seccomp_profile: str = ""
    # AppArmor profile of this handler's containers that name none, it must be loaded; "" = that of the node
    apparmor_profile: str = ""
    # JSON file with an OCI spec that adds to what noded generates, an absolute path: env, rlimits, mounts,
    # hooks, annotations, resources, devices that the generated spec lacks; "" = none
    base_spec: str = ""
    default_sysctls: Mapping[str, str] = field(default_factory=dict)  # over the node's default_sysctls
    # CPU on which a command of exec starts: "first" of the shared CPUs, else of the container's; "" = any
    exec_cpu_affinity: Literal["", "first"] = ""
    # CNI configuration directory of this handler's pods, an absolute path; "" = that of [network]
    cni_conf_dir: str = ""
    storage_driver: Literal["", StorageDriver] = ""  # of this handler's new containers; "" = that of [images]


@dataclass(frozen=True, slots=True)
class Config:
    """Top-level keys."""

    root: Path = ROOT  # persistent state: database, images, writable layers
    state: Path = STATE  # volatile state: bundles, sockets; must be on a tmpfs
    listen: Path = SOCKET  # CRI socket
    listen_group: str = ""  # group that may use the socket beside root, "" = root only
    log_level: Literal["debug", "info", "warning", "error"] = "info"  # debug, info, warning, error
    # auto (console on a terminal, else json), console, json
    log_format: Literal["auto", "console", "json"] = "auto"
    # auto (systemd where it is PID 1, else cgroupfs), systemd, cgroupfs
    cgroup_driver: Literal["auto", "cgroupfs", "systemd"] = "auto"
    monitor_cgroup: str = "pod"  # where conmon runs: pod, or an absolute cgroup path
    conmon: str = "conmon"  # name or path of conmon
    # what watches a container (conmon, a shim) or holds its pod (gVisor's sentry) is continued when a signal
    # has kept it stopped so long, and killed when it is stopped so long again at once, 0 = never
    stalled_seconds: Seconds = 20.0
    # size at which a container's log begins anew, what was in it is lost: for a node without a kubelet, which
    # rotates logs. 0 = none; less than 16384 counts as that
    container_log_max_bytes: Annotated[int, AtLeast(0)] = 0
    init: str = "catatonit"  # static init for pods that share their PID namespace
    default_runtime: str = "runc"  # handler of pods without a RuntimeClass
    drain_seconds: Seconds = 20.0  # how long SIGTERM waits for calls in flight
    unclaimed_seconds: Seconds = 600.0  # a finished create that no client asks for again is undone
    # capabilities of containers that are not privileged, before the pod adds and drops
    default_capabilities: tuple[str, ...] = (
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
        "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL",
    )  # fmt: skip
    # AppArmor profile of containers that name none: noded-default is built in, "" = none; another one
    # is loaded by the administrator
    apparmor_profile: str = "noded-default"
    enable_selinux: bool = True  # label pods on a node whose kernel has SELinux; policy: container-selinux
    # MCS categories of the node's policy, two of which keep each pod apart from all others
    selinux_categories: Annotated[int, AtLeast(2)] = 1024
    # containers with the node's network are not confined by SELinux (type spc_t) unless they name a type
    hostnetwork_disable_selinux: bool = True
    default_sysctls: Mapping[str, str] = field(default_factory=dict)  # for pods with own namespaces
    timezone: str = ""  # TZ file name for containers, "" = image's own
    default_env: Mapping[str, str] = field(default_factory=dict)  # variables below those of image and pod
    # limits of every container's processes, as NAME = "SOFT:HARD" (nofile = "1024:4096"); none = the daemon's
    default_ulimits: Mapping[str, str] = field(default_factory=dict)
    # file with mounts of every container, lines /SOURCE:/DESTINATION (containers-mounts.conf(5)), "" = none
    default_mounts_file: Path | None = None
    # files with classes of block I/O and of RDT that pods choose by the annotations
    # blockio.resources.beta.kubernetes.io/pod, rdt.resources.beta.kubernetes.io/container.NAME...; "" = none
    blockio_config_file: Path | None = None
    rdt_config_file: Path | None = None  # its groups below /sys/fs/resctrl must exist
    infra_ctr_cpuset: str = ""  # CPUs of the init process of pods, such as "0-1"; "" = all
    # CPUs that containers with the annotation cpu-shared.crio.io/CONTAINER = "enable" get beside their own
    shared_cpuset: str = ""
    pids_limit: Annotated[int, AtLeast(0)] = 0  # tasks in one container, 0 = no limit of its own
    minimum_memory_bytes: Annotated[int, AtLeast(0)] = 0  # a smaller memory limit is refused, 0 = none is
    device_ownership_from_security_context: bool = False  # device nodes belong to runAsUser and runAsGroup
    # host paths that are refused as mount sources when they do not exist; others are made
    absent_mount_sources_to_reject: tuple[str, ...] = ()
    # devices that a pod may name in the annotation devices.noded.io, where its handler allows that
    allowed_devices: tuple[str, ...] = ("/dev/fuse", "/dev/net/tun")
    # kinds of pods by annotation, each a table [workloads.NAME]: activation_annotation, annotation_prefix,
    # allowed_annotations, and resources = { cpushares, cpuset, cpuquota, cpuperiod, cpulimit }
    workloads: Mapping[str, WorkloadConfig] = field(default_factory=dict)
    # directories with files of CDI devices; a later one replaces devices of an earlier one
    cdi_spec_dirs: tuple[Path, ...] = (Path("/etc/cdi"), Path("/var/run/cdi"))
    # directories with OCI hooks, oci-hooks(5); a later one hides files of the same name in earlier ones
    hooks_dirs: tuple[Path, ...] = (
        Path("/usr/share/containers/oci/hooks.d"),
        Path("/etc/containers/oci/hooks.d"),
    )
    network: NetworkConfig = NetworkConfig()  # CNI
    images: ImagesConfig = ImagesConfig()  # registries and the local store
    streaming: StreamingConfig = StreamingConfig()  # exec, attach and port-forward
    metrics: MetricsConfig = MetricsConfig()  # the daemon's own metrics for Prometheus
    compat: CompatConfig = CompatConfig()  # what clients need that were made for another runtime
    checkpoint: CheckpointConfig = CheckpointConfig()  # containers saved and restored with CRIU
    tracing: TracingConfig = TracingConfig()  # OpenTelemetry
    nri: NriConfig = NriConfig()  # plugins that adjust pods and containers
    # runtime handlers, one table each; runc and crun exist without one
    runtimes: tuple[HandlerConfig, ...] = (HandlerConfig("runc", "runc"), HandlerConfig("crun", "crun"))
    plugin_order: tuple[str, ...] = ()  # plugins whose hooks are called before those of all others, in order
    disabled_plugins: tuple[str, ...] = ()  # entry point names of plugins that are not loaded
