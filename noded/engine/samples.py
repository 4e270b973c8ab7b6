"""What is told of pods and containers at one moment; `noded.engine.stats` takes it."""

from __future__ import annotations

from dataclasses import dataclass

from noded.host.cgroup_detail import CgroupDetail
from noded.host.cgroup_stats import CgroupUsage
from noded.host.network_stats import InterfaceStats
from noded.images.usage import Measurement
from noded.model.views import ContainerView, SandboxView


@dataclass(frozen=True, slots=True)
class ContainerSample:
    """One container. `usage` is None when it has ended; `nano_cores` needs an earlier sample."""

    view: ContainerView
    usage: CgroupUsage | None = None
    nano_cores: int | None = None
    disk: Measurement | None = None


@dataclass(frozen=True, slots=True)
class PodSample:
    """One pod. `interfaces` is None for a pod on the host's network, which is not its own.

    Args:
        processes: in all its containers.
        default_interface: name of the device of the pod network.
    """

    view: SandboxView
    at_ns: int
    usage: CgroupUsage | None = None
    nano_cores: int | None = None
    interfaces: tuple[InterfaceStats, ...] | None = None
    default_interface: str = ""
    processes: int | None = None
    containers: tuple[ContainerSample, ...] = ()


@dataclass(frozen=True, slots=True)
class Filesystem:
    """The one that holds all writable layers; `device` is what is mounted there."""

    device: str
    total_bytes: int
    total_inodes: int
    free_inodes: int


@dataclass(frozen=True, slots=True)
class ContainerDetail:
    """Everything that metrics tell of one container. `place` is its cgroup."""

    view: ContainerView
    place: str
    detail: CgroupDetail
    disk: Measurement | None = None
    descriptors: int = 0
    sockets: int | None = None
    open_files_limit: int | None = None


@dataclass(frozen=True, slots=True)
class PodDetail:
    """Everything that metrics tell of one pod. `detail` is None where it has no cgroup of its own."""

    view: SandboxView
    place: str
    at_ns: int
    detail: CgroupDetail | None
    interfaces: tuple[InterfaceStats, ...] | None
    containers: tuple[ContainerDetail, ...]
