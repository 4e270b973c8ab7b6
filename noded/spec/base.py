"""A handler's base spec: what an administrator adds to every container of a handler.

It lies under what noded generates: a value that noded makes stays, lists and tables get what they lack.
What decides about the container's confinement, identity and place is noded's alone and read over, so that a
file made by `ctr oci spec` or `runc spec` can be used. Spec: OCI runtime-spec, config.md, config-linux.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from noded.errors import InvalidArgument
from noded.spec.mounts import depth, destination
from noded.wire.descriptor import as_list, as_object, as_text

_STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
# Keys that count, and those that are read over.
_TOP = ("process", "mounts", "hooks", "annotations", "linux", "domainname")
_TOP_READ_OVER = ("ociVersion", "root", "hostname")
_PROCESS = ("env", "rlimits", "scheduler", "ioPriority")
_PROCESS_READ_OVER = (
    "terminal", "consoleSize", "user", "args", "cwd", "capabilities", "noNewPrivileges", "apparmorProfile",
    "selinuxLabel", "oomScoreAdj",
)  # fmt: skip
_LINUX = ("resources", "devices", "intelRdt", "personality", "timeOffsets", "memoryPolicy")
_LINUX_READ_OVER = (
    "namespaces", "cgroupsPath", "seccomp", "maskedPaths", "readonlyPaths", "mountLabel", "uidMappings",
    "gidMappings", "rootfsPropagation",
)  # fmt: skip
_RESOURCES = ("memory", "cpu", "pids", "blockIO", "hugepageLimits", "network", "rdma", "unified")


def parse_base_spec(text: str) -> Mapping[str, Any]:
    """The part of a base spec that counts.

    Raises: InvalidArgument naming the key that is wrong.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"not JSON: {error}") from None
    base = _known(as_object(document, "the document"), "", _TOP, _TOP_READ_OVER)
    if "process" in base:
        base["process"] = _process(base["process"])
    if "linux" in base:
        base["linux"] = _linux(base["linux"])
    if "annotations" in base:
        _texts(base["annotations"], "annotations")
    if "domainname" in base:
        as_text(base["domainname"], "domainname")
    for index, mount in enumerate(as_list(base.get("mounts"), "mounts")):
        _absolute(as_object(mount, f"mounts[{index}]"), "destination", f"mounts[{index}]")
    _hooks(base)
    return base


def with_base(spec: dict[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with what a base spec adds; the given one stays as it is."""
    result = dict(spec)
    if "process" in base:
        result["process"] = _over_process(spec["process"], base["process"])
    if "linux" in base:
        result["linux"] = _over_linux(spec["linux"], base["linux"])
    if "annotations" in base:
        merged = {**base["annotations"], **spec.get("annotations", {})}
        result["annotations"] = {key: merged[key] for key in sorted(merged)}
    if "mounts" in base:
        more = _lacking(spec["mounts"], base["mounts"], lambda mount: destination(mount["destination"]))
        result["mounts"] = sorted((*spec["mounts"], *more), key=depth)
    if "hooks" in base:
        own = spec.get("hooks", {})
        result["hooks"] = {
            stage: [*base["hooks"].get(stage, ()), *own.get(stage, ())]
            for stage in _STAGES
            if stage in base["hooks"] or stage in own
        }
    if "domainname" in base:
        result.setdefault("domainname", base["domainname"])
    return result


def _over_process(process: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    result = {**{key: base[key] for key in ("scheduler", "ioPriority") if key in base}, **process}
    if "env" in base:
        more = _lacking(process["env"], base["env"], lambda entry: entry.partition("=")[0])
        result["env"] = [*more, *process["env"]]
    if "rlimits" in base:
        own = process.get("rlimits", ())
        more = _lacking(own, base["rlimits"], lambda limit: limit["type"])
        result["rlimits"] = sorted((*own, *more), key=lambda limit: str(limit["type"]))
    return result


def _over_linux(linux: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    result = {**{key: base[key] for key in _LINUX if key in base}, **linux}
    if "resources" in base:
        result["resources"] = _under(linux["resources"], base["resources"])
    if "devices" in base:
        own = linux.get("devices", [])
        more = _lacking(own, base["devices"], lambda device: device["path"])
        result["devices"] = sorted((*own, *more), key=lambda device: str(device["path"]))
        rules = [
            {"allow": True, **{key: device[key] for key in ("type", "major", "minor")}, "access": "rwm"}
            for device in more
        ]
        resources = result["resources"]
        result["resources"] = {**resources, "devices": [*resources["devices"], *rules]}
    return result


def _under(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Objects with objects in them; where both have something else, `own` counts."""
    result = {**base, **own}
    for key in own.keys() & base.keys():
        if isinstance(own[key], Mapping) and isinstance(base[key], Mapping):
            result[key] = _under(own[key], base[key])
    return result


def _lacking(own: Sequence[Any], base: Sequence[Any], name: Callable[[Any], str]) -> list[Any]:
    there = {name(item) for item in own}
    return [item for item in base if name(item) not in there]


def _process(value: Any) -> dict[str, Any]:
    process = _known(as_object(value, "process"), "process.", _PROCESS, _PROCESS_READ_OVER)
    for index, entry in enumerate(as_list(process.get("env"), "process.env")):
        text = as_text(entry, f"process.env[{index}]")
        if not text.partition("=")[0] or "=" not in text or "\0" in text:
            raise InvalidArgument(f"process.env[{index}]: {text!r} is not NAME=VALUE")
    for index, entry in enumerate(as_list(process.get("rlimits"), "process.rlimits")):
        where = f"process.rlimits[{index}]"
        limit = as_object(entry, where)
        if not as_text(limit.get("type"), f"{where}.type").startswith("RLIMIT_"):
            raise InvalidArgument(f"{where}.type: {limit['type']!r} is no limit such as RLIMIT_NOFILE")
        for key in ("soft", "hard"):
            _number(limit, key, where)
        if limit["soft"] > limit["hard"]:
            raise InvalidArgument(f"{where}.soft: {limit['soft']} is above the hard limit {limit['hard']}")
    for key in ("scheduler", "ioPriority"):
        if key in process:
            as_object(process[key], f"process.{key}")
    return process


def _linux(value: Any) -> dict[str, Any]:
    fields = as_object(value, "linux")
    if fields.get("sysctl"):
        raise InvalidArgument("linux.sysctl: sysctls belong to pods, use default_sysctls of the handler")
    fields = {key: item for key, item in fields.items() if key != "sysctl"}
    linux = _known(fields, "linux.", _LINUX, _LINUX_READ_OVER)
    for key in ("resources", "intelRdt", "personality", "timeOffsets", "memoryPolicy"):
        if key in linux:
            as_object(linux[key], f"linux.{key}")
    if "resources" in linux:
        linux["resources"] = _known(linux["resources"], "linux.resources.", _RESOURCES, ("devices",))
        for key in ("memory", "cpu", "pids", "blockIO", "network", "rdma", "unified"):
            if key in linux["resources"]:
                as_object(linux["resources"][key], f"linux.resources.{key}")
    for index, entry in enumerate(as_list(linux.get("devices"), "linux.devices")):
        where = f"linux.devices[{index}]"
        device = as_object(entry, where)
        _absolute(device, "path", where)
        if device.get("type") not in ("c", "b", "u"):
            raise InvalidArgument(f"{where}.type: {device.get('type')!r} is none of c, b, u")
        for key in ("major", "minor"):
            _number(device, key, where)
    return linux


def _hooks(base: Mapping[str, Any]) -> None:
    hooks = as_object(base.get("hooks") or {}, "hooks")
    for stage, entries in _known(hooks, "hooks.", _STAGES, ()).items():
        for index, entry in enumerate(as_list(entries, f"hooks.{stage}")):
            _absolute(as_object(entry, f"hooks.{stage}[{index}]"), "path", f"hooks.{stage}[{index}]")


def _known(
    fields: Mapping[str, Any], where: str, counting: Sequence[str], read_over: Sequence[str]
) -> dict[str, Any]:
    for key in fields:
        if key not in counting and key not in read_over:
            known = ", ".join(counting)
            raise InvalidArgument(f"{where}{key}: not known in a Linux container's spec; there are {known}")
    return {key: fields[key] for key in counting if fields.get(key) is not None}


def _absolute(fields: Mapping[str, Any], key: str, where: str) -> None:
    path = as_text(fields.get(key), f"{where}.{key}")
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{where}.{key}: {path!r} must be an absolute path")


def _number(fields: Mapping[str, Any], key: str, where: str) -> None:
    value = fields.get(key)
    if type(value) is not int or not 0 <= value < 2**64:
        raise InvalidArgument(f"{where}.{key}: {value!r} is not a number from 0 to 2**64-1")


def _texts(value: Any, where: str) -> None:
    for key, text in as_object(value, where).items():
        as_text(text, f"{where}.{key}")
