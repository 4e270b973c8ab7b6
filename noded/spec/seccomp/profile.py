"""Profiles written by administrators: read and checked at load, then made for one container.

Two forms are in use and both are understood: the runtime-spec's `linux.seccomp`, and Docker's and
Podman's, which adds conditions (`includes`, `excludes`), `archMap` and errno names.
"""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noded.errors import InvalidArgument
from noded.spec.seccomp.architectures import KNOWN as ARCHITECTURES
from noded.spec.seccomp.architectures import architectures, matches

MAX_PROFILE_BYTES = 1 << 20
_MAX_ARGUMENT = 2**64 - 1

_ACTIONS = (
    "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP",
)  # fmt: skip
_OPERATORS = tuple(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))
_FLAGS = tuple(f"SECCOMP_FILTER_FLAG_{name}" for name in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV"))
_PROFILE_KEYS = (
    "$schema", "archMap", "architectures", "comment", "defaultAction", "defaultErrno", "defaultErrnoRet",
    "flags", "listenerMetadata", "listenerPath", "syscalls",
)  # fmt: skip
_RULE_KEYS = ("action", "args", "comment", "errno", "errnoRet", "excludes", "includes", "name", "names")
_ARGUMENT_KEYS = ("index", "op", "value", "valueTwo")
_CONDITION_KEYS = ("arches", "caps", "minKernel")
_ARCH_MAP_KEYS = ("architecture", "subArchitectures")


def parse_profile(data: bytes, source: str) -> dict[str, Any]:
    """Read and check a profile; `resolve_profile` makes it fit a container.

    Args:
        data: JSON.
        source: path or reference, for messages.

    Raises: InvalidArgument naming the source, the offending key and what would be right. Runtimes
    report most of these mistakes as a container that does not start, or not at all.
    """
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidArgument(f"seccomp profile {source}: larger than {MAX_PROFILE_BYTES} bytes")
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"seccomp profile {source}: not JSON: {error}") from error
    return check_profile(profile, source)


def parse_artifact_profile(data: bytes, source: str) -> dict[str, Any]:
    """`parse_profile` for one that comes from a registry.

    Its author is not the node's administrator, so it may not make the runtime connect to a socket.
    """
    profile = parse_profile(data, source)
    for key in ("listenerPath", "listenerMetadata"):
        if profile.get(key):
            raise InvalidArgument(f"seccomp profile {source}: {key}: not allowed in a profile of a registry")
    return profile


def check_profile(profile: Any, source: str) -> dict[str, Any]:
    """The same for JSON that is parsed already; a checked profile passes unchanged."""
    return _Checker(source).profile(copy.deepcopy(profile))


def resolve_profile(
    profile: Mapping[str, Any], *, architecture: str, capabilities: Iterable[str], kernel: tuple[int, int]
) -> dict[str, Any]:
    """A parsed profile as OCI `linux.seccomp` for a container with these capabilities."""
    held = frozenset(capabilities)
    value: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    default_errno = _errno(profile.get("defaultErrno"), profile.get("defaultErrnoRet"))
    if default_errno is not None:
        value["defaultErrnoRet"] = default_errno
    if names := _architectures(profile, architecture):
        value["architectures"] = names
    for key in ("flags", "listenerPath", "listenerMetadata"):
        if profile.get(key):
            value[key] = profile[key]
    rules = [
        _resolved_rule(rule)
        for rule in profile.get("syscalls") or ()
        if _applies(rule, architecture, held, kernel)
    ]
    if rules:
        value["syscalls"] = rules
    return value


def _resolved_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = {
        "names": list(rule.get("names") or [rule["name"]]),
        "action": rule["action"],
    }
    number = _errno(rule.get("errno"), rule.get("errnoRet"))
    if number is not None:
        value["errnoRet"] = number
    if rule.get("args"):
        value["args"] = [dict(argument) for argument in rule["args"]]
    return value


def _errno(name: str | None, number: int | None) -> int | None:
    return int(getattr(errno, name)) if name else number


def _architectures(profile: Mapping[str, Any], architecture: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    native = architectures(architecture)[:1]
    for entry in profile.get("archMap") or ():
        if entry["architecture"] in native:
            return [entry["architecture"], *(entry.get("subArchitectures") or ())]
    return []


def _applies(
    rule: Mapping[str, Any], architecture: str, held: frozenset[str], kernel: tuple[int, int]
) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and not matches(architecture, includes["arches"]):
        return False
    if includes.get("minKernel") and kernel < _version(includes["minKernel"]):
        return False
    if not held.issuperset(includes.get("caps") or ()):
        return False
    if excludes.get("arches") and matches(architecture, excludes["arches"]):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    return held.isdisjoint(excludes.get("caps") or ())


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor or 0)


class _Checker:
    """Walks a parsed profile; every message starts with the source and the path of the key."""

    def __init__(self, source: str) -> None:
        self._source = source

    def profile(self, value: Any) -> dict[str, Any]:
        profile = self._object(value, "", _PROFILE_KEYS)
        if "defaultAction" not in profile:
            raise self._error("", 'the key "defaultAction" is missing')
        self._one_of(profile["defaultAction"], "defaultAction", _ACTIONS)
        if profile["defaultAction"] == "SCMP_ACT_NOTIFY":
            raise self._error("defaultAction", "SCMP_ACT_NOTIFY would stop the runtime: name the calls")
        self._errno_pair(profile, "", "defaultErrno", "defaultErrnoRet")
        for index, name in enumerate(self._list(profile, "architectures")):
            self._one_of(name, f"architectures[{index}]", ARCHITECTURES)
        for index, name in enumerate(self._list(profile, "flags")):
            self._one_of(name, f"flags[{index}]", _FLAGS)
        for index, entry in enumerate(self._list(profile, "archMap")):
            self._arch_map(entry, f"archMap[{index}]")
        for key in ("listenerPath", "listenerMetadata"):
            if not isinstance(profile.get(key) or "", str):
                raise self._error(key, "must be a text")
        listener = bool(profile.get("listenerPath"))
        for index, rule in enumerate(self._list(profile, "syscalls")):
            self._rule(rule, f"syscalls[{index}]", listener=listener)
        return profile

    def _rule(self, value: Any, path: str, *, listener: bool) -> None:
        rule = self._object(value, path, _RULE_KEYS)
        names = self._list(rule, "names", path)
        if rule.get("name"):
            names = [*names, rule["name"]]
        if not names:
            raise self._error(f"{path}.names", "names no system call")
        for index, name in enumerate(names):
            if not isinstance(name, str) or not name:
                raise self._error(f"{path}.names[{index}]", f"{name!r} is not the name of a system call")
        if "action" not in rule:
            raise self._error(path, 'the key "action" is missing')
        self._one_of(rule["action"], f"{path}.action", _ACTIONS)
        if rule["action"] == "SCMP_ACT_NOTIFY":
            if not listener:
                raise self._error(f"{path}.action", 'SCMP_ACT_NOTIFY needs the key "listenerPath"')
            if "write" in names:
                raise self._error(f"{path}.names", "write with SCMP_ACT_NOTIFY would stop the runtime itself")
        self._errno_pair(rule, path, "errno", "errnoRet")
        for index, argument in enumerate(self._list(rule, "args", path)):
            self._argument(argument, f"{path}.args[{index}]")
        for key in ("includes", "excludes"):
            self._condition(rule.get(key) or {}, f"{path}.{key}")

    def _argument(self, value: Any, path: str) -> None:
        argument = self._object(value, path, _ARGUMENT_KEYS)
        for key in ("index", "value", "op"):
            if key not in argument:
                raise self._error(path, f'the key "{key}" is missing')
        self._integer(argument["index"], f"{path}.index", 5)
        self._integer(argument["value"], f"{path}.value", _MAX_ARGUMENT)
        self._integer(argument.get("valueTwo", 0), f"{path}.valueTwo", _MAX_ARGUMENT)
        self._one_of(argument["op"], f"{path}.op", _OPERATORS)

    def _condition(self, value: Any, path: str) -> None:
        condition = self._object(value, path, _CONDITION_KEYS)
        for key in ("arches", "caps"):
            for index, name in enumerate(self._list(condition, key, path)):
                if not isinstance(name, str):
                    raise self._error(f"{path}.{key}[{index}]", f"{name!r} is not a text")
        minimum = condition.get("minKernel") or "0.0"
        parts = minimum.split(".") if isinstance(minimum, str) else []
        if not 1 <= len(parts) <= 2 or not all(part.isascii() and part.isdecimal() for part in parts):
            raise self._error(f"{path}.minKernel", f'{minimum!r} is not of the form "4.8"')

    def _arch_map(self, value: Any, path: str) -> None:
        entry = self._object(value, path, _ARCH_MAP_KEYS)
        names = [entry.get("architecture"), *self._list(entry, "subArchitectures", path)]
        for name in names:
            self._one_of(name, path, ARCHITECTURES)

    def _errno_pair(self, holder: Mapping[str, Any], path: str, name_key: str, number_key: str) -> None:
        prefix = f"{path}." if path else ""
        name = holder.get(name_key)
        if name and (not isinstance(name, str) or not isinstance(getattr(errno, name, None), int)):
            raise self._error(f"{prefix}{name_key}", f"{name!r} is not the name of an errno")
        if holder.get(number_key) is not None:
            self._integer(holder[number_key], f"{prefix}{number_key}", 4095)

    def _object(self, value: Any, path: str, known: tuple[str, ...]) -> dict[str, Any]:
        """An object with known keys only, in their canonical case.

        Programs in Go, for which profiles are written, match keys without regard to case.
        """
        if not isinstance(value, dict):
            raise self._error(path, "must be an object")
        by_lower = {key.lower(): key for key in known}
        for key in list(value):
            canonical = by_lower.get(key.lower())
            if canonical is None:
                close = _nearest(key, known)
                hint = f', did you mean "{close}"?' if close else ""
                raise self._error(f"{path}.{key}".lstrip("."), f"unknown key{hint}")
            value[canonical] = value.pop(key)
        return value

    def _list(self, holder: Mapping[str, Any], key: str, path: str = "") -> list[Any]:
        value = holder.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self._error(f"{path}.{key}".lstrip("."), "must be a list")
        return value

    def _one_of(self, value: Any, path: str, known: Iterable[str]) -> None:
        names = sorted(known)
        if value not in names:
            close = _nearest(str(value), names)
            hint = f", did you mean {close}?" if close else f", use one of {', '.join(names)}"
            raise self._error(path, f"{value!r} is unknown{hint}")

    def _integer(self, value: Any, path: str, maximum: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= maximum:
            raise self._error(path, f"{value!r} is not an integer between 0 and {maximum}")

    def _error(self, path: str, problem: str) -> InvalidArgument:
        where = f"{path}: " if path else ""
        return InvalidArgument(f"seccomp profile {self._source}: {where}{problem}")


def _nearest(word: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # for mistakes only

    return next(iter(get_close_matches(word, known, 1)), "")
