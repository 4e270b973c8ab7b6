"""What a CDI device changes in an OCI runtime spec (CDI SPEC.md "containerEdits")."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noded.spec.inputs import ResolvedDevice
from noded.spec.mounts import depth, destination


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device node to make; what is None comes from the node at `host_path`.

    Args:
        type: "b", "c", "u" or "p"; "" = as on the host.
        permissions: of the device cgroup; "" means "rwm".
    """

    path: str
    host_path: str
    type: str = ""
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing about it has to be asked of the host."""
        return self.type == "p" or (bool(self.type) and self.major is not None and self.minor is not None)


@dataclass(frozen=True, slots=True)
class DeviceMount:
    host_path: str
    container_path: str
    options: tuple[str, ...] = ()
    type: str = ""


@dataclass(frozen=True, slots=True)
class Hook:
    """An OCI hook; `stage` is its key in the spec's `hooks`, `timeout_seconds` None = no limit."""

    stage: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class ContainerEdits:
    """`net_devices` maps the name of an interface of the node to its name inside."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[DeviceMount, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additional_gids: tuple[int, ...] = ()
    intel_rdt: Mapping[str, Any] | None = None
    net_devices: Mapping[str, str] = field(default_factory=dict)


def joined(all_edits: Iterable[ContainerEdits]) -> ContainerEdits:
    """Edits one after the other; the last RDT class wins, since a container has one."""
    edits = list(all_edits)
    rdt = [entry.intel_rdt for entry in edits if entry.intel_rdt is not None]
    return ContainerEdits(
        env=tuple(value for entry in edits for value in entry.env),
        device_nodes=tuple(node for entry in edits for node in entry.device_nodes),
        mounts=tuple(mount for entry in edits for mount in entry.mounts),
        hooks=tuple(hook for entry in edits for hook in entry.hooks),
        additional_gids=tuple(gid for entry in edits for gid in entry.additional_gids),
        intel_rdt=rdt[-1] if rdt else None,
        net_devices={name: inside for entry in edits for name, inside in entry.net_devices.items()},
    )


def apply_edits(
    spec: Mapping[str, Any], edits: ContainerEdits, host_nodes: Mapping[str, ResolvedDevice]
) -> dict[str, Any]:
    """The spec with the edits; the given one stays as it is.

    Args:
        host_nodes: what is at the `host_path` of each device node that is not `complete`.
    """
    edited: dict[str, Any] = copy.deepcopy(dict(spec))
    process, linux = edited.setdefault("process", {}), edited.setdefault("linux", {})
    if edits.env:
        process["env"] = merged_env(process.get("env", ()), edits.env)
    for node in edits.device_nodes:
        _add_device(linux, node, host_nodes.get(node.host_path), process.get("user", {}))
    if edits.mounts:
        edited["mounts"] = _merged_mounts(edited.get("mounts", ()), edits.mounts)
    if edits.hooks:
        edited["hooks"] = merged_hooks(edited.get("hooks", {}), edits.hooks)
    if gids := {gid for gid in edits.additional_gids if gid}:
        user = process.setdefault("user", {"uid": 0, "gid": 0})
        user["additionalGids"] = sorted(gids.union(user.get("additionalGids", ())))
    if edits.intel_rdt is not None:
        linux["intelRdt"] = dict(edits.intel_rdt)
    if edits.net_devices:
        devices = linux.setdefault("netDevices", {})
        devices.update({name: {"name": inside} for name, inside in sorted(edits.net_devices.items())})
    return edited


def merged_env(current: Iterable[str], added: Iterable[str]) -> list[str]:
    """Variables in order of first appearance, the last value of each."""
    values = {entry.partition("=")[0]: entry for entry in current}
    for entry in added:
        values[entry.partition("=")[0]] = entry
    return list(values.values())


def merged_hooks(current: Mapping[str, Any], added: Iterable[Hook]) -> dict[str, list[dict[str, Any]]]:
    """A spec's `hooks` with more of them, behind those that are there."""
    hooks = {stage: list(entries) for stage, entries in current.items()}
    for hook in added:
        value: dict[str, Any] = {"path": hook.path}
        if hook.args:
            value["args"] = list(hook.args)
        if hook.env:
            value["env"] = list(hook.env)
        if hook.timeout_seconds is not None:
            value["timeout"] = hook.timeout_seconds
        hooks.setdefault(hook.stage, []).append(value)
    return hooks


def _add_device(
    linux: dict[str, Any], node: DeviceNode, host: ResolvedDevice | None, user: Mapping[str, Any]
) -> None:
    kind = node.type or (host.type if host else "c")
    value: dict[str, Any] = {"path": destination(node.path), "type": kind}
    if kind != "p":
        value["major"] = node.major if node.major is not None else host.major if host else 0
        value["minor"] = node.minor if node.minor is not None else host.minor if host else 0
    if node.file_mode is not None:
        value["fileMode"] = node.file_mode
    # A process that is not root could not open a node of root's, mode 0660, that it was given.
    for key, given in (("uid", node.uid), ("gid", node.gid)):
        owner = given if given is not None else user.get(key, 0)
        if given is not None or owner:
            value[key] = owner
    others = [entry for entry in linux.get("devices", ()) if entry["path"] != value["path"]]
    linux["devices"] = sorted([*others, value], key=lambda entry: str(entry["path"]))
    if kind != "p":
        rule = {"allow": True, "type": "b" if kind == "b" else "c"}
        rule |= {key: value[key] for key in ("major", "minor")}
        rule["access"] = node.permissions or "rwm"
        rules = linux.setdefault("resources", {}).setdefault("devices", [])
        if rule not in rules:
            rules.append(rule)


def _merged_mounts(
    current: Iterable[Mapping[str, Any]], added: Iterable[DeviceMount]
) -> list[dict[str, Any]]:
    mounts = {str(mount["destination"]): dict(mount) for mount in current}
    for mount in added:
        path = destination(mount.container_path)
        options = list(mount.options)
        # Files of vendors leave both out and mean a bind mount; runtimes would refuse them.
        if mount.type in ("", "bind") and not {"bind", "rbind"} & set(options):
            options.insert(0, "rbind")
        mounts.pop(path, None)
        mounts[path] = {
            "destination": path,
            "type": mount.type or "bind",
            "source": mount.host_path,
            "options": options,
        }
    return sorted(mounts.values(), key=depth)
