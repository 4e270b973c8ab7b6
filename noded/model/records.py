"""What the database keeps of sandboxes and containers, and its JSON form.

The CRI request is stored verbatim beside these facts; `config` is its decoded form. The functions
here are pure; unknown keys in stored facts are ignored, so an older daemon can read a newer row
within the limits that the migration's `oldest_reader` sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noded.model.container import ContainerConfig, ContainerKey, ContainerUser
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.network import Attachment, AttachmentResult
from noded.model.pod import HugepageLimit, PodConfig, Resources, SandboxKey
from noded.model.runtime import Exit


@dataclass(frozen=True, slots=True)
class Owed:
    """A teardown that failed: since when, how often tried, and what it said last."""

    since_ns: int
    tries: int
    stage: str
    last_error: str

    def shown(self) -> dict[str, Any]:
        """What the verbose status of its object tells of it."""
        return {"stage": self.stage, "error": self.last_error, "tries": self.tries}


def _owed(data: Mapping[str, Any] | None) -> Owed | None:
    return Owed(**_only(data, *Owed.__slots__)) if data else None


def addresses(results: Sequence[AttachmentResult]) -> tuple[str, ...]:
    """Pod addresses in the order that the first network reported them."""
    return results[0].ips if results else ()


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One pod sandbox. `attachments` is the CNI intent, stored before ADD runs.

    `complete` says that it was once READY, so that a client may know it. `cgroup_prefix` begins the names
    of the pod's cgroups. `selinux_level` is the level of the pod, "" = made without SELinux.
    """

    id: str
    key: SandboxKey
    handler: str
    request: bytes
    config: PodConfig
    created_at_ns: int
    boot_id: str
    intent: SandboxIntent
    complete: bool = False
    attachments: tuple[Attachment, ...] = ()
    results: tuple[AttachmentResult, ...] = ()
    owed: Owed | None = None
    overhead: Resources | None = None
    resources: Resources | None = None
    cgroup_prefix: str = "noded"
    selinux_level: str = ""

    @property
    def ips(self) -> tuple[str, ...]:
        """Pod addresses in the order that the first network reported them."""
        return addresses(self.results)

    def facts(self) -> str:
        return json.dumps(
            {
                "complete": self.complete,
                "attachments": [_fields(attachment) for attachment in self.attachments],
                "results": [_fields(result) for result in self.results],
                "owed": _fields(self.owed) if self.owed else None,
                "overhead": _resources_to_json(self.overhead),
                "resources": _resources_to_json(self.resources),
                "cgroup_prefix": self.cgroup_prefix,
                "selinux_level": self.selinux_level,
            },
            separators=(",", ":"),
        )


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """One container. `cgroup` is its OCI cgroupsPath, `chain_ids` the layers it pins. `owed` is a removal
    that failed; it goes on, whatever the intent.

    `volume_images` has an entry for each of the container's mounts: the ID of the image that is
    mounted there, "" for a host path. `seccomp_artifact` is `registry/repository@digest` of a seccomp
    profile that was pulled for it, `seccomp_blob` the digest of the profile itself; `seccomp_mode` a
    `noded.spec.seccomp.annotations.NotifyMode`, "" = nothing is told of its system calls. `restore` is
    what the container is restored from: the path of a checkpoint archive, or the ID of an image of one.
    """

    id: str
    key: ContainerKey
    request: bytes
    config: ContainerConfig
    created_at_ns: int
    boot_id: str
    intent: ContainerIntent
    image_id: str
    chain_ids: tuple[str, ...] = ()
    cgroup: str = ""
    log_path: str = ""
    stop_signal: str = ""
    user: ContainerUser | None = None
    pid: int = 0
    started_at_ns: int = 0
    exited: Exit | None = None
    resources: Resources | None = None
    volume_images: tuple[str, ...] = ()
    seccomp_artifact: str = ""
    seccomp_blob: str = ""
    seccomp_mode: str = ""
    restore: str = ""
    owed: Owed | None = None

    def facts(self) -> str:
        return json.dumps(
            {
                "image_id": self.image_id,
                "volume_images": self.volume_images,
                "chain_ids": self.chain_ids,
                "cgroup": self.cgroup,
                "log_path": self.log_path,
                "stop_signal": self.stop_signal,
                "user": _fields(self.user) if self.user else None,
                "pid": self.pid,
                "started_at_ns": self.started_at_ns,
                "exited": _fields(self.exited) if self.exited else None,
                "resources": _resources_to_json(self.resources),
                "seccomp_artifact": self.seccomp_artifact,
                "seccomp_blob": self.seccomp_blob,
                "seccomp_mode": self.seccomp_mode,
                "restore": self.restore,
                "owed": _fields(self.owed) if self.owed else None,
            },
            separators=(",", ":"),
        )


def sandbox_facts(text: str) -> dict[str, Any]:
    """Parse stored facts into keyword arguments of `SandboxRecord`."""
    data = json.loads(text)
    return {
        "complete": data.get("complete", False),
        "attachments": tuple(_attachment(item) for item in data.get("attachments", ())),
        "results": tuple(
            AttachmentResult(raw=item["raw"], ips=tuple(item["ips"])) for item in data.get("results", ())
        ),
        "owed": _owed(data.get("owed")),
        "overhead": _resources_from_json(data.get("overhead")),
        "resources": _resources_from_json(data.get("resources")),
        "cgroup_prefix": data.get("cgroup_prefix", "noded"),
        "selinux_level": data.get("selinux_level", ""),
    }


def container_facts(text: str) -> dict[str, Any]:
    """Parse stored facts into keyword arguments of `ContainerRecord`."""
    data = json.loads(text)
    user, exited = data.get("user"), data.get("exited")
    return {
        "image_id": data["image_id"],
        "volume_images": tuple(data.get("volume_images", ())),
        "chain_ids": tuple(data.get("chain_ids", ())),
        "cgroup": data.get("cgroup", ""),
        "log_path": data.get("log_path", ""),
        "stop_signal": data.get("stop_signal", ""),
        "user": ContainerUser(user["uid"], user["gid"], tuple(user["supplemental_groups"])) if user else None,
        "pid": data.get("pid", 0),
        "started_at_ns": data.get("started_at_ns", 0),
        "exited": Exit(**_only(exited, *Exit.__slots__)) if exited else None,
        "resources": _resources_from_json(data.get("resources")),
        "seccomp_artifact": data.get("seccomp_artifact", ""),
        "seccomp_blob": data.get("seccomp_blob", ""),
        "seccomp_mode": data.get("seccomp_mode", ""),
        "restore": data.get("restore", ""),
        "owed": _owed(data.get("owed")),
    }


def _only(data: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: data[name] for name in names if name in data}


def _attachment(data: Mapping[str, Any]) -> Attachment:
    known = _only(data, "sandbox_id", "netns_path", "ifname", "network", "conflist", "capability_args")
    return Attachment(**known, cni_args=tuple((key, value) for key, value in data["cni_args"]))


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a value with slots. Unlike `dataclasses.asdict` it copies nothing that is in them."""
    return {name: getattr(value, name) for name in value.__slots__}


def _resources_to_json(resources: Resources | None) -> dict[str, Any] | None:
    if resources is None:
        return None
    pages = [_fields(limit) for limit in resources.hugepage_limits]
    return _fields(resources) | {"unified": dict(resources.unified), "hugepage_limits": pages}


def _resources_from_json(data: Mapping[str, Any] | None) -> Resources | None:
    if data is None:
        return None
    limits = tuple(HugepageLimit(item["page_size"], item["limit_bytes"]) for item in data["hugepage_limits"])
    known = _only(data, *(name for name in Resources.__slots__ if name != "hugepage_limits"))
    return Resources(**known, hugepage_limits=limits)
