"""One CDI file: JSON or YAML text to checked values (CDI SPEC.md, versions 0.3.0 to 1.1.0)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from noded.errors import InvalidArgument
from noded.spec.cdi.edits import ContainerEdits, DeviceMount, DeviceNode, Hook
from noded.spec.cdi.names import Kind, check_device_name, parse_kind
from noded.wire.descriptor import as_list, as_object, as_text, as_text_list

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

_EDITS = ("env", "deviceNodes", "netDevices", "mounts", "hooks", "intelRdt", "additionalGids")
_RDT_TEXTS = ("closID", "l3CacheSchema", "memBwSchema")
_RDT_FLAGS = ("enableCMT", "enableMBM", "enableMonitoring")
_PERMISSIONS = re.compile(r"[rwm]{0,3}")
_MOST = 2**32 - 1
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CdiSpec:
    """One file: edits of each device, and those that come with the first device of the file."""

    kind: Kind
    edits: ContainerEdits
    devices: Mapping[str, ContainerEdits]


def parse_document(text: str) -> CdiSpec:
    """Read a file's text.

    Raises: InvalidArgument naming the device and the key.
    """
    fields = as_object(_load(text), "the document")
    _known(fields, ("cdiVersion", "kind", "annotations", "devices", "containerEdits"), "the document")
    version = as_text(fields.get("cdiVersion"), "cdiVersion")
    if version not in VERSIONS:
        raise InvalidArgument(f"cdiVersion {version!r} is none of {', '.join(VERSIONS)}")
    try:
        kind = parse_kind(as_text(fields.get("kind"), "kind"))
    except InvalidArgument as error:
        raise InvalidArgument(f"kind: {error}") from None
    needs = _Needs(version)
    if "." in kind.device_class:
        needs("0.6.0", "kind: a dot in the class")
    if fields.get("annotations"):
        needs("0.6.0", "annotations")
    devices: dict[str, ContainerEdits] = {}
    for index, entry in enumerate(as_list(fields.get("devices"), "devices")):
        name, edits = _device(entry, f"devices[{index}]", needs)
        if name in devices:
            raise InvalidArgument(f"device {name!r} is there twice")
        devices[name] = edits
    if not devices:
        raise InvalidArgument("devices: there is none")
    edits = _edits(fields.get("containerEdits") or {}, "containerEdits", needs)
    return CdiSpec(kind, edits, devices)


def _load(text: str) -> Any:
    """JSON is YAML too, but the JSON parser is much faster and always there."""
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass  # `{a: b}` is YAML only
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidArgument(f"not YAML: {' '.join(str(error).split())}") from None


@dataclass(frozen=True, slots=True)
class _Needs:
    """Refuses what a file's own version does not know: its author meant something else by it."""

    version: str

    def __call__(self, least: str, what: str) -> None:
        if VERSIONS.index(self.version) < VERSIONS.index(least):
            raise InvalidArgument(f"{what} needs cdiVersion {least} or later, this is {self.version}")


def _device(value: Any, where: str, needs: _Needs) -> tuple[str, ContainerEdits]:
    fields = as_object(value, where)
    try:
        name = check_device_name(as_text(fields.get("name"), f"{where}.name"))
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error}") from None
    where = f"device {name!r}"
    _known(fields, ("name", "annotations", "containerEdits"), where)
    if name[0].isdigit():
        needs("0.5.0", f"{where}: a name that begins with a digit")
    if fields.get("annotations"):
        needs("0.6.0", f"{where}: annotations")
    edits = _edits(fields.get("containerEdits") or {}, f"{where}: containerEdits", needs)
    if edits == ContainerEdits():
        raise InvalidArgument(f"{where}: containerEdits is empty")
    return name, edits


def _edits(value: Any, where: str, needs: _Needs) -> ContainerEdits:
    fields = as_object(value, where)
    _known(fields, _EDITS, where)
    rdt = fields.get("intelRdt")
    gids = as_list(fields.get("additionalGids") or [], f"{where}.additionalGids")
    nets = _each(fields, "netDevices", where, _net_device)
    for key, least in (("intelRdt", "0.7.0"), ("additionalGids", "0.7.0"), ("netDevices", "1.1.0")):
        if fields.get(key):
            needs(least, f"{where}.{key}")
    return ContainerEdits(
        env=_env(fields.get("env"), f"{where}.env"),
        device_nodes=_each(fields, "deviceNodes", where, lambda item, at: _device_node(item, at, needs)),
        mounts=_each(fields, "mounts", where, lambda item, at: _mount(item, at, needs)),
        hooks=_each(fields, "hooks", where, _hook),
        additional_gids=tuple(
            _number(gid, f"{where}.additionalGids[{index}]", _MOST) for index, gid in enumerate(gids)
        ),
        intel_rdt=None if rdt is None else _rdt(rdt, f"{where}.intelRdt", needs),
        net_devices=dict(nets),
    )


def _each(fields: Mapping[str, Any], key: str, where: str, parse: Callable[[Any, str], _T]) -> tuple[_T, ...]:
    items = as_list(fields.get(key) or [], f"{where}.{key}")
    return tuple(parse(item, f"{where}.{key}[{index}]") for index, item in enumerate(items))


def _env(value: Any, where: str) -> tuple[str, ...]:
    entries = as_text_list(value or [], where)
    for entry in entries:
        if entry.partition("=")[0] in ("", entry) or "\0" in entry:
            raise InvalidArgument(f"{where}: {entry!r} is not NAME=VALUE")
    return tuple(entries)


def _device_node(value: Any, where: str, needs: _Needs) -> DeviceNode:
    fields = as_object(value, where)
    keys = ("path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid")
    _known(fields, keys, where)
    if fields.get("hostPath"):
        needs("0.5.0", f"{where}.hostPath")
    path = _path(fields, "path", where)
    kind = as_text(fields.get("type") or "", f"{where}.type")
    if kind not in ("", "b", "c", "u", "p"):
        raise InvalidArgument(f"{where}.type: {kind!r} is none of b, c, u, p")
    permissions = as_text(fields.get("permissions") or "", f"{where}.permissions")
    if not _PERMISSIONS.fullmatch(permissions):
        raise InvalidArgument(f"{where}.permissions: {permissions!r} is not made of r, w and m")

    def number(key: str, most: int) -> int | None:
        given = fields.get(key)
        return None if given is None else _number(given, f"{where}.{key}", most)

    major, minor = number("major", _MOST), number("minor", _MOST)
    if major in (None, 0) and kind != "p":
        # A file that does not say 0 and one that does read the same to the format's own library.
        major = minor = None
    return DeviceNode(
        path=path,
        host_path=_path(fields, "hostPath", where) if fields.get("hostPath") else path,
        type=kind,
        major=major,
        minor=0 if minor is None and major is not None else minor,
        file_mode=number("fileMode", 0o7777),
        permissions=permissions,
        uid=number("uid", _MOST),
        gid=number("gid", _MOST),
    )


def _mount(value: Any, where: str, needs: _Needs) -> DeviceMount:
    fields = as_object(value, where)
    _known(fields, ("hostPath", "containerPath", "options", "type"), where)
    kind = as_text(fields.get("type") or "", f"{where}.type")
    if kind:
        needs("0.4.0", f"{where}.type")
    source = as_text(fields.get("hostPath"), f"{where}.hostPath")
    if kind in ("", "bind"):
        source = _path(fields, "hostPath", where)
    options = tuple(as_text_list(fields.get("options") or [], f"{where}.options"))
    return DeviceMount(source, _path(fields, "containerPath", where), options, kind)


def _hook(value: Any, where: str) -> Hook:
    fields = as_object(value, where)
    _known(fields, ("hookName", "path", "args", "env", "timeout"), where)
    stage = as_text(fields.get("hookName"), f"{where}.hookName")
    if stage not in STAGES:
        raise InvalidArgument(f"{where}.hookName: {stage!r} is none of {', '.join(STAGES)}")
    timeout = fields.get("timeout")
    return Hook(
        stage=stage,
        path=_path(fields, "path", where),
        args=tuple(as_text_list(fields.get("args") or [], f"{where}.args")),
        env=_env(fields.get("env"), f"{where}.env"),
        timeout_seconds=None if timeout is None else _number(timeout, f"{where}.timeout", _MOST, least=1),
    )


def _rdt(value: Any, where: str, needs: _Needs) -> dict[str, Any]:
    fields = as_object(value, where)
    _known(fields, (*_RDT_TEXTS, "schemata", *_RDT_FLAGS), where)
    rdt: dict[str, Any] = {}
    for key in _RDT_TEXTS:
        if fields.get(key):
            rdt[key] = as_text(fields[key], f"{where}.{key}")
    if rdt.get("closID", "x") in (".", "..") or "/" in rdt.get("closID", ""):
        raise InvalidArgument(f"{where}.closID: {rdt['closID']!r} is not the name of a directory")
    if fields.get("schemata"):
        needs("1.1.0", f"{where}.schemata")
        rdt["schemata"] = list(as_text_list(fields["schemata"], f"{where}.schemata"))
    for key in _RDT_FLAGS:
        if fields.get(key):
            if fields[key] is not True:
                raise InvalidArgument(f"{where}.{key} is not true or false")
            rdt[key] = True
    if "enableMonitoring" in rdt:
        needs("1.1.0", f"{where}.enableMonitoring")
    return rdt


def _net_device(value: Any, where: str) -> tuple[str, str]:
    fields = as_object(value, where)
    _known(fields, ("hostInterfaceName", "name"), where)
    names = [as_text(fields.get(key), f"{where}.{key}") for key in ("hostInterfaceName", "name")]
    for name in names:
        if not name or name in (".", "..") or "/" in name or len(name.encode()) > 15:
            raise InvalidArgument(f"{where}: {name!r} cannot be the name of a network interface")
    return names[0], names[1]


def _path(fields: Mapping[str, Any], key: str, where: str) -> str:
    path = as_text(fields.get(key), f"{where}.{key}")
    if not path.startswith("/") or "\0" in path:
        raise InvalidArgument(f"{where}.{key}: {path!r} must be an absolute path")
    return path


def _number(value: Any, where: str, most: int, *, least: int = 0) -> int:
    if type(value) is not int or not least <= value <= most:
        raise InvalidArgument(f"{where}: {value!r} is not a number from {least} to {most}")
    return value


def _known(fields: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in fields:
        if key not in keys:
            raise InvalidArgument(f"{where}: unknown key {key!r}; there are {', '.join(keys)}")
