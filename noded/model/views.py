"""What the core shows of its objects: immutable snapshots, replaced whole when anything changes.

The edge answers List and Status from these without a lock and caches encodings by object
identity: same object, same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from noded.model.container import ContainerConfig, ContainerUser
from noded.model.pod import PodConfig, Resources
from noded.model.states import ContainerState, SandboxState


@dataclass(frozen=True, eq=False)
class SandboxView:
    """A pod sandbox as clients see it. `ips` is empty for host-network pods."""

    id: str
    config: PodConfig
    handler: str
    state: SandboxState
    created_at_ns: int
    ips: tuple[str, ...] = ()
    pid: int = 0  # a live process in the pod's namespaces, 0 = none
    info: tuple[tuple[str, Any], ...] = ()  # JSON-able details for verbose status


@dataclass(frozen=True, eq=False)
class ContainerView:
    """A container as clients see it; times are ns since the epoch, 0 = not yet."""

    id: str
    sandbox_id: str
    config: ContainerConfig
    state: ContainerState
    created_at_ns: int
    image_id: str
    log_path: str = ""  # absolute
    started_at_ns: int = 0
    finished_at_ns: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    resources: Resources | None = None  # as last applied
    user: ContainerUser | None = None
    stop_signal: str = ""  # the effective one: the client's, the image's, or SIGTERM
    volume_images: tuple[str, ...] = ()  # ID of the image at each of config.mounts, "" for a host path
    pid: int = 0
    info: tuple[tuple[str, Any], ...] = ()
