"""The smallest things that can be changed in what a spec is built from, and how to change them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from noded.model.pod import SecurityProfile
from noded.spec.inputs import ContainerInputs, SpecPolicy

Path = tuple[Any, ...]  # names of attributes, positions in tuples, keys of mappings

_PROFILES = ("default_seccomp", "privileged_seccomp", "seccomp_profile")
_OTHER_PROFILES = tuple({"defaultAction": f"SCMP_ACT_{action}"} for action in ("KILL_PROCESS", "TRAP"))
_ID = re.compile(r"(?<=:)(\d+)(?=:|$)", re.MULTILINE)


class Removed(NamedTuple):
    """In place of a value: the entry goes away."""


@dataclass(frozen=True, slots=True)
class Atom:
    """One input.

    Args:
        owner: the class of the value that holds it.
        unset: it has the value that stands for "nobody said anything".
        alternatives: other values, the best first.
        every: what all of them change counts, not only what the first usable one does.
    """

    path: Path
    owner: type
    value: Any
    unset: bool
    alternatives: tuple[Any, ...]
    every: bool = False


def atoms(value: Any, path: Path = (), owner: type = object) -> Iterator[Atom]:
    """Every input below a value."""
    if value is None:
        return
    name = next((part for part in reversed(path) if isinstance(part, str)), "")
    if name in _PROFILES:
        yield Atom(path, owner, value, False, _OTHER_PROFILES, every=True)
    elif (owner is SpecPolicy and name == "base") or (owner is ContainerInputs and name == "block_io"):
        yield Atom(path, owner, value, False, (None,))
    elif name in ("passwd", "group") and isinstance(value, str):
        moved = _ID.sub(lambda found: str(int(found[1]) + 1), value)
        yield Atom(path, owner, value, not value, (moved, ""), every=True)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            inner = getattr(value, field.name)
            if inner == () and field.type != "tuple[str, ...]":
                continue  # of what could be in it, nothing can be said
            yield from atoms(inner, (*path, field.name), type(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(inner, str):
                yield Atom((*path, key), owner, inner, False, (f"{inner}x", "", Removed()))
            else:
                yield from atoms(inner, (*path, key), owner)
    elif isinstance(value, frozenset):
        for item in sorted(value):
            yield Atom((*path, item), owner, item, False, (Removed(),))
    elif isinstance(value, tuple):
        yield from _entries(value, path, owner)
    else:
        yield _scalar(value, path, owner)


def _entries(value: tuple[Any, ...], path: Path, owner: type) -> Iterator[Atom]:
    if not value:
        # Absent lists decide too: an empty `command` means the image's.
        yield Atom(path, owner, value, True, (("/x",), ("CAP_SYS_TIME",), ("NET_RAW",), ("ALL",)), every=True)
        return
    if hasattr(value, "_fields"):  # a named tuple is one value
        return
    for index, item in enumerate(value):
        here = (*path, index)
        if isinstance(item, str):
            yield Atom(here, owner, item, False, (f"{item}x", Removed()))
        elif isinstance(item, tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
            yield Atom(here, owner, item, False, ((item[0], f"{item[1]}x"), Removed()))
        elif isinstance(item, int):
            yield Atom(here, owner, item, False, (item + 1, item - 1, Removed()))
        else:
            yield Atom(here, type(item), item, False, (Removed(),))
            yield from atoms(item, here, owner)


def _scalar(value: Any, path: Path, owner: type) -> Atom:
    if isinstance(value, bool):
        return Atom(path, owner, value, not value, (not value,))
    if isinstance(value, Enum):
        others = tuple(other for other in type(value) if other is not value)
        # A profile that is there was chosen, whatever the number of its type.
        return Atom(path, owner, value, value.value == 0 and owner is not SecurityProfile, others, every=True)
    if isinstance(value, int):
        return Atom(path, owner, value, value == 0, (value + 1, value - 1, 0))
    if isinstance(value, str):
        return Atom(path, owner, value, not value, (f"{value}x", "/x", "x", "0.0.1", ""))
    raise TypeError(f"{'.'.join(map(str, path))}: noded.spec.explain.atoms knows no way to change {value!r}")


def changed(whole: Any, path: Path, new: Any) -> Any:
    """A copy of frozen values with another value at the end of the path."""
    if not path:
        return new
    head, rest = path[0], path[1:]
    remove = not rest and isinstance(new, Removed)
    if isinstance(whole, Mapping):
        if remove:
            return {key: value for key, value in whole.items() if key != head}
        return {**whole, head: changed(whole[head], rest, new)}
    if isinstance(whole, frozenset):
        return whole - {head}
    if isinstance(whole, tuple):
        middle = () if remove else (changed(whole[head], rest, new),)
        return (*whole[:head], *middle, *whole[head + 1 :])
    return replace(whole, **{head: changed(getattr(whole, head), rest, new)})
