"""Facts of a pod's CNI attachment: stored before ADD, so that DEL never depends on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Attachment:
    """The intent to attach one sandbox to one CNI network; everything that ADD and DEL need.

    `conflist` is the whole configuration list as parsed JSON, copied at ADD time.
    `capability_args` maps a capability (portMappings, bandwidth, dns...) to its runtimeConfig.
    """

    sandbox_id: str
    netns_path: str
    ifname: str
    network: str
    conflist: Mapping[str, Any]
    cni_args: tuple[tuple[str, str], ...] = ()
    capability_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttachmentResult:
    """The outcome of ADD: the raw CNI result (becomes prevResult) and its addresses in order."""

    raw: Mapping[str, Any]
    ips: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    """Whether pods can be attached; feeds the CRI NetworkReady condition."""

    ready: bool
    reason: str = ""
    message: str = ""
