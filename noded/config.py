"""The daemon's configuration as frozen values.

Every field's comment is its documentation: unit, default, effect. `noded.settings` reads TOML
files into these classes and reports unknown keys and bad values with file and line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """`[network]`: CNI."""

    conf_dir: Path = Path("/etc/cni/net.d")  # watched; the first file in name order is the pod network
    bin_dirs: tuple[Path, ...] = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
    default_network: str = ""  # use the network of this name instead of the first file
    conf_template: str = ""  # file with a conflist template, rendered when kubelet announces the podCIDR
    add_timeout_seconds: float = 220.0  # budget of one CNI ADD of a whole list
    del_timeout_seconds: float = 60.0  # budget of one CNI DEL of a whole list
    del_grace_seconds: float = 300.0  # how long a failing DEL blocks Stop and Remove of a sandbox
    gc_period_seconds: float = 600.0  # between two CNI GC runs; 0 = never


@dataclass(frozen=True, slots=True)
class ImagesConfig:
    """`[images]`: registries and the local store."""

    registries_conf: Path = Path("/etc/containers/registries.conf")  # containers-registries.conf(5), v2
    auth_file: Path | None = None  # containers-auth.json(5) used when kubelet sends no credential
    max_parallel_downloads: int = 6  # blobs per pull
    unpack_workers: int = 0  # layers unpacked at once; 0 = number of CPUs
    stall_timeout_seconds: float = 60.0  # a download without a byte for so long is dropped and resumed
    keep_blobs: bool = True  # keep compressed layers after unpacking (save and repair need them)
    pinned: tuple[str, ...] = ()  # references or globs that garbage collection must not remove


@dataclass(frozen=True, slots=True)
class HandlerConfig:
    """`[runtimes.HANDLER]`: one runtime handler. Other keys belong to its type's options."""

    name: str
    type: str
    options: Mapping[str, Any] = field(default_factory=dict)
    default_annotations: Mapping[str, str] = field(default_factory=dict)
    allowed_annotations: tuple[str, ...] = ()
    create_timeout_seconds: float = 240.0


@dataclass(frozen=True, slots=True)
class Config:
    """Top-level keys."""

    root: Path = Path("/var/lib/noded")  # persistent state: database, images, writable layers
    state: Path = Path("/run/noded")  # volatile state: bundles, sockets; must be on a tmpfs
    listen: Path = Path("/run/noded/noded.sock")  # CRI socket
    listen_group: str = ""  # group that may use the socket beside root, "" = root only
    log_level: str = "info"  # debug, info, warning, error
    log_format: str = "auto"  # auto (console on a terminal, else json), console, json
    cgroup_driver: str = "auto"  # auto (systemd where it is PID 1), cgroupfs, systemd
    monitor_cgroup: str = "pod"  # where conmon runs: pod, or an absolute cgroup path
    conmon: str = "conmon"  # name or path of conmon
    init: str = "catatonit"  # static init for pods that share their PID namespace
    default_runtime: str = "runc"  # handler of pods without a RuntimeClass
    drain_seconds: float = 20.0  # how long SIGTERM waits for calls in flight
    unclaimed_seconds: float = 600.0  # a finished create that no client asks for again is undone
    default_capabilities: tuple[str, ...] = (
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_SETGID", "CAP_SETUID",
        "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_KILL",
    )  # fmt: skip
    default_sysctls: Mapping[str, str] = field(default_factory=dict)  # for pods with own namespaces
    timezone: str = ""  # TZ file name for containers, "" = image's own
    network: NetworkConfig = NetworkConfig()
    images: ImagesConfig = ImagesConfig()
    runtimes: tuple[HandlerConfig, ...] = (HandlerConfig("runc", "runc"), HandlerConfig("crun", "crun"))
    disabled_plugins: tuple[str, ...] = ()
