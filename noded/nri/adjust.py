"""Applying what plugins want to an OCI runtime spec. Pure.

Field by field as config.md and config-linux.md of the runtime specification have them.
"""

from __future__ import annotations

import copy
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

from noded.errors import FailedPrecondition
from noded.nri.limits import to_oci
from noded.nri.merge import removal
from noded.proto.nri.pkg.api import v1alpha1 as api

_HOOKS: Final = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}
_IO_CLASSES: Final = {1: "IOPRIO_CLASS_RT", 2: "IOPRIO_CLASS_BE", 3: "IOPRIO_CLASS_IDLE"}
_SHARED: Final = frozenset({"shared", "rshared"})
_SLAVE: Final = frozenset({"slave", "rslave"})
_NAMESPACES: Final = frozenset({"pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"})


def adjusted(
    spec: Mapping[str, Any], adjust: api.ContainerAdjustment, *, swap_accounting: bool
) -> dict[str, Any]:
    """Return the spec with the adjustment in it, but for CDI devices, which come before all else.

    Args:
        swap_accounting: whether the node limits swap.

    Raises: FailedPrecondition for what cannot be applied, naming it.
    """
    result: dict[str, Any] = copy.deepcopy(dict(spec))
    process, linux = result.setdefault("process", {}), result.setdefault("linux", {})
    _mapping(result, "annotations", adjust.annotations)
    process["env"] = _environment(process.get("env", []), adjust.env)
    if adjust.args:
        process["args"] = list(adjust.args)
    if adjust.hooks is not None:
        _hooks(result, adjust.hooks)
    for limit in adjust.rlimits:
        kept = [one for one in process.get("rlimits", []) if one["type"] != limit.type]
        process["rlimits"] = [*kept, {"type": limit.type, "hard": limit.hard, "soft": limit.soft}]
    if adjust.linux is not None:
        _linux(process, linux, adjust.linux, swap_accounting)
    if adjust.mounts:
        _mounts(result, adjust.mounts)
    return result


def _linux(
    process: dict[str, Any],
    linux: dict[str, Any],
    wanted: api.LinuxContainerAdjustment,
    swap_accounting: bool,
) -> None:
    _devices(linux, wanted.devices)
    if wanted.cgroups_path:
        linux["cgroupsPath"] = wanted.cgroups_path
    if wanted.oom_score_adj is not None:
        process["oomScoreAdj"] = wanted.oom_score_adj.value
    if wanted.io_priority is not None:
        _io_priority(process, wanted.io_priority)
    if wanted.scheduler is not None:
        _scheduler(process, wanted.scheduler)
    if wanted.seccomp_policy is not None:
        linux["seccomp"] = _seccomp(wanted.seccomp_policy)
    _namespaces(linux, wanted.namespaces)
    _mapping(linux, "sysctl", wanted.sysctl)
    _mapping(
        linux,
        "netDevices",
        {key: {"name": one.name} if one and one.name else {} for key, one in wanted.net_devices.items()},
    )
    if wanted.memory_policy is not None:
        _memory_policy(linux, wanted.memory_policy)
    if wanted.rdt is not None:
        _rdt(linux, wanted.rdt)
    if wanted.resources is not None:
        _resources(linux, wanted.resources, swap_accounting)


def _mapping(parent: dict[str, Any], name: str, wanted: Mapping[str, Any]) -> None:
    if not wanted:
        return
    values = dict(parent.get(name, {}))
    for key in wanted:
        if (gone := removal(key)) is not None:
            values.pop(gone, None)
    values.update({key: value for key, value in wanted.items() if removal(key) is None})
    parent[name] = values


def _environment(present: Sequence[str], wanted: Sequence[api.KeyValue]) -> list[str]:
    """Changed variables keep their place, new ones follow."""
    changes: dict[str, str | None] = {}
    for one in wanted:
        gone = removal(one.key)
        if gone is None:
            changes[one.key] = one.value
        else:
            changes[gone] = None
    result = []
    for text in present:
        name = text.partition("=")[0]
        if name not in changes:
            result.append(text)
        elif (value := changes.pop(name)) is not None:
            result.append(f"{name}={value}")
    return result + [f"{name}={value}" for name, value in changes.items() if value is not None]


def _hooks(spec: dict[str, Any], wanted: api.Hooks) -> None:
    for key, name in _HOOKS.items():
        hooks = getattr(wanted, name)
        if hooks:
            spec.setdefault("hooks", {}).setdefault(key, []).extend(_hook(hook) for hook in hooks)


def _hook(hook: api.Hook) -> dict[str, Any]:
    value: dict[str, Any] = {"path": hook.path}
    if hook.args:
        value["args"] = list(hook.args)
    if hook.env:
        value["env"] = list(hook.env)
    if hook.timeout is not None:
        value["timeout"] = hook.timeout.value
    return value


def _devices(linux: dict[str, Any], wanted: Sequence[api.LinuxDevice]) -> None:
    for device in wanted:
        gone = removal(device.path)
        nodes = [one for one in linux.get("devices", []) if one["path"] != (gone or device.path)]
        linux["devices"] = nodes
        if gone is not None:
            continue
        node: dict[str, Any] = {"path": device.path, "type": device.type}
        if device.type != "p":
            node |= {"major": device.major, "minor": device.minor}
        for key, value in (("fileMode", device.file_mode), ("uid", device.uid), ("gid", device.gid)):
            if value is not None:
                node[key] = value.value
        nodes.append(node)
        rules = linux.setdefault("resources", {}).setdefault("devices", [])
        if device.type != "p":
            rules.append(
                {
                    "allow": True,
                    "type": device.type,
                    "major": device.major,
                    "minor": device.minor,
                    "access": "rwm",
                }
            )


def _io_priority(process: dict[str, Any], wanted: api.LinuxIoPriority) -> None:
    number = int(wanted.class_)
    if number == 0:
        process.pop("ioPriority", None)
    elif number in _IO_CLASSES:
        process["ioPriority"] = {"class": _IO_CLASSES[number], "priority": wanted.priority}
    else:
        raise FailedPrecondition(f"an NRI plugin wants I/O priority class {number}, which does not exist")


def _scheduler(process: dict[str, Any], wanted: api.LinuxScheduler) -> None:
    if int(wanted.policy) == 0:
        process.pop("scheduler", None)
        return
    scheduler: dict[str, Any] = {"policy": _word(wanted.policy)}
    for key in ("nice", "priority", "runtime", "deadline", "period"):
        if getattr(wanted, key):
            scheduler[key] = getattr(wanted, key)
    if wanted.flags:
        scheduler["flags"] = [_word(flag) for flag in wanted.flags]
    process["scheduler"] = scheduler


def _word(value: Any) -> str:
    """The name of an enumeration's value as the runtime specification writes it."""
    known = {int(one): str(one.name) for one in type(value)}
    if int(value) not in known:
        kind = type(value).__name__
        raise FailedPrecondition(f"an NRI plugin wants {kind} {int(value)}, which does not exist")
    return known[int(value)]


def _seccomp(wanted: api.LinuxSeccomp) -> dict[str, Any]:
    policy: dict[str, Any] = {"defaultAction": wanted.default_action}
    if wanted.default_errno is not None:
        policy["defaultErrnoRet"] = wanted.default_errno.value
    for key, value in (
        ("architectures", wanted.architectures),
        ("flags", wanted.flags),
        ("listenerPath", wanted.listener_path),
        ("listenerMetadata", wanted.listener_metadata),
    ):
        if value:
            policy[key] = value
    if wanted.syscalls:
        policy["syscalls"] = [_syscall(rule) for rule in wanted.syscalls]
    return policy


def _syscall(rule: api.LinuxSyscall) -> dict[str, Any]:
    value: dict[str, Any] = {"names": list(rule.names), "action": rule.action}
    if rule.errno_ret is not None:
        value["errnoRet"] = rule.errno_ret.value
    if rule.args:
        value["args"] = [
            {"index": one.index, "value": one.value, "valueTwo": one.value_two, "op": one.op}
            for one in rule.args
        ]
    return value


def _namespaces(linux: dict[str, Any], wanted: Sequence[api.LinuxNamespace]) -> None:
    for one in wanted:
        gone = removal(one.type)
        kind = gone or one.type
        if kind not in _NAMESPACES:
            raise FailedPrecondition(f"an NRI plugin names namespace {kind!r}, which does not exist")
        kept = [other for other in linux.get("namespaces", []) if other["type"] != kind]
        if gone is None:
            kept.append({"type": kind, "path": one.path} if one.path else {"type": kind})
        linux["namespaces"] = kept


def _memory_policy(linux: dict[str, Any], wanted: api.LinuxMemoryPolicy) -> None:
    policy: dict[str, Any] = {"mode": _word(wanted.mode), "nodes": wanted.nodes}
    if wanted.flags:
        policy["flags"] = [_word(flag) for flag in wanted.flags]
    linux["memoryPolicy"] = policy


def _rdt(linux: dict[str, Any], wanted: api.LinuxRdt) -> None:
    if wanted.remove:
        linux.pop("intelRdt", None)
    changes: dict[str, Any] = {}
    if wanted.clos_id is not None:
        changes["closID"] = wanted.clos_id.value
    if wanted.schemata is not None:
        changes["schemata"] = list(wanted.schemata.value)
    if wanted.enable_monitoring is not None:
        changes["enableMonitoring"] = wanted.enable_monitoring.value
    if changes:
        linux["intelRdt"] = linux.get("intelRdt", {}) | changes


def _resources(linux: dict[str, Any], wanted: api.LinuxResources, swap_accounting: bool) -> None:
    resources = linux.setdefault("resources", {})
    for key, value in to_oci(wanted, swap_accounting=swap_accounting).items():
        if key == "hugepageLimits":
            sizes = {one["pageSize"] for one in value}
            kept = [one for one in resources.get(key, []) if one["pageSize"] not in sizes]
            resources[key] = kept + value
        else:
            resources[key] = resources.get(key, {}) | value
    for rule in wanted.devices:
        value = {"allow": rule.allow, "access": rule.access}
        if rule.type:
            value["type"] = rule.type
        for name in ("major", "minor"):
            number = getattr(rule, name)
            if number is not None:
                value[name] = number.value
        resources.setdefault("devices", []).append(value)


def _mounts(spec: dict[str, Any], wanted: Sequence[api.Mount]) -> None:
    mounts = list(spec.get("mounts", []))
    for mount in wanted:
        gone = removal(mount.destination)
        place = _place(gone if gone is not None else mount.destination)
        mounts = [one for one in mounts if _place(one["destination"]) != place]
        if gone is not None:
            continue
        options = set(mount.options)
        value: dict[str, Any] = {"destination": place, "source": mount.source, "options": list(mount.options)}
        kind = mount.type or ("bind" if options & {"bind", "rbind"} else "")
        mounts.append(value | ({"type": kind} if kind else {}))
        _open_rootfs(spec["linux"], options)
    # Parents before children; among equals the order stays as it is.
    spec["mounts"] = sorted(mounts, key=lambda one: _depth(one["destination"]))


def _open_rootfs(linux: dict[str, Any], options: set[str]) -> None:
    """A mount propagates only as far as the propagation of the root file system lets it."""
    present = linux.get("rootfsPropagation", "")
    if options & _SHARED:
        linux["rootfsPropagation"] = "shared"
    elif options & _SLAVE and present not in _SHARED | _SLAVE:
        linux["rootfsPropagation"] = "slave"


def _place(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


def _depth(path: str) -> int:
    place = _place(path)
    return 0 if place == "/" else place.count("/")
