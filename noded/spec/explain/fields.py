"""A spec as a flat table of its fields, named so that two specs can be compared field by field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

# Objects whose keys are names that somebody chose: `annotations[a.b/c]`, not `annotations.a.b/c`.
_MAPS = re.compile(r"annotations|linux\.(sysctl|netDevices|resources\.unified|resources\.rdma)")
# What tells the entries of a list of objects apart; the others are numbered.
_KEYS = (
    (re.compile(r"mounts"), "destination"),
    (re.compile(r"linux\.namespaces"), "type"),
    (re.compile(r"linux\.devices"), "path"),
    (re.compile(r"process\.rlimits"), "type"),
    (re.compile(r"linux\.resources\.hugepageLimits"), "pageSize"),
)
_NUMBERED = re.compile(r"process\.args|hooks\.\w+(\[\d+\]\.(args|env))?")
_ENV = "process.env"
_CALLS = "linux.seccomp.syscalls"
_RULES = "linux.resources.devices"
_MISSING = object()


def fields(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of every field, in the order of the spec.

    Entries of lists are named by what makes them different (a mount by its destination, a variable by its
    name, a capability by itself) and not by position, so that one that comes or goes does not rename the
    others. An empty list or object is a field itself.
    """
    found: dict[str, Any] = {}
    for name, value in _walk("", spec):
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name}#{number}"
        found[unique] = value
    return found


def differing(spec: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    """Names of the fields of a spec that another one lacks or has with another value."""
    ours, theirs = _unequal(spec, other), _unequal(other, spec)
    for key in ("process", "linux"):  # the large ones: parts of them are quickly seen to be equal
        if key in ours and key in theirs:
            ours[key], theirs[key] = _unequal(ours[key], theirs[key]), _unequal(theirs[key], ours[key])
    there = fields(theirs)
    return {
        name for name, value in fields(ours).items() if value != there.get(name, _MISSING) and value != {}
    }


def _unequal(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in one.items() if key not in other or other[key] != value}


def _walk(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        if not value:
            yield name, {}
        chosen = _MAPS.fullmatch(name) is not None
        for key, inner in value.items():
            yield from _walk(f"{name}[{key}]" if chosen else f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        if not value:
            yield name, []
        if name == _CALLS:
            yield from _calls(value)
            return
        for index, item in enumerate(value):
            label, inner = _entry(name, index, item)
            yield from _walk(f"{name}[{label}]", inner)
    else:
        yield name, value


def _entry(name: str, index: int, item: Any) -> tuple[str, Any]:
    if isinstance(item, Mapping):
        if name == _RULES:
            return _rule(item), item
        for pattern, key in _KEYS:
            if pattern.fullmatch(name) and key in item:
                return str(item[key]), item
        return str(index), item
    if name == _ENV:
        return str(item).partition("=")[0], item
    return (str(index) if _NUMBERED.fullmatch(name) else str(item)), item


def _rule(rule: Mapping[str, Any]) -> str:
    verb = "allow" if rule.get("allow") else "deny"
    if "major" not in rule:
        return f"{verb} all"
    return f"{verb} {rule.get('type', 'a')} {rule['major']}:{rule.get('minor', '*')}"


def _calls(rules: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    """A field for each system call and condition: its value is what happens."""
    for rule in rules:
        action = {key: rule[key] for key in ("action", "errnoRet") if key in rule}
        condition = f" if {json.dumps(rule['args'], separators=(',', ':'))}" if rule.get("args") else ""
        for call in rule.get("names", ()):
            yield f"{_CALLS}[{call}{condition}]", " ".join(str(part) for part in action.values())
