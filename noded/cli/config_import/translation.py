"""What a translation is made of: rules for keys, and the report of what became of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from noded.wire import go_duration

Verdict = Literal["maps", "differs", "none"]
MAPS: Final = "maps"
DIFFERS: Final = "differs"
NONE: Final = "none"

ITS_OWN = "keep noded apart: it has directories and a socket of its own"
SECCOMP = "noded's RuntimeDefault profile is built in; pods name their own with localhostProfile"
NO_PAUSE = "a pod needs no pause container"
NO_SUCH_KEY = "noded has no such key for a handler"

# OCI runtimes by program or shim, and the type of noded that runs them.
TYPES = {
    "runc": "runc", "crun": "crun", "youki": "runc", "runsc": "runsc",
    "io.containerd.runc.v2": "runc", "io.containerd.runc.v1": "runc", "io.containerd.runsc.v1": "runsc",
    "io.containerd.kata.v2": "kata", "io.containerd.kata-qemu.v2": "kata",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one key. `verdict`: maps, differs or none."""

    key: str
    value: str
    verdict: Verdict
    note: str


@dataclass(slots=True)
class Translation:
    """The result: a table as in noded.toml, and the report."""

    table: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    def set(self, path: str, value: Any) -> None:
        """Put a value at a dotted path."""
        *parents, name = path.split(".")
        place = self.table
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value

    def row(self, key: str, value: Any, verdict: Verdict, note: str) -> None:
        """Report what became of one key."""
        self.rows.append(Row(key, shown(value), verdict, note))

    def maps(self, key: str, value: Any, path: str, made: Any) -> None:
        """Put what a key becomes at a dotted path, and report it."""
        self.set(path, made)
        self.row(key, value, MAPS, path)

    def apply(self, key: str, value: Any, rule: Rule | None) -> None:
        """Do what the rule of a key says; None: there is none."""
        if value in ("", [], {}):
            return  # as good as not set
        if rule is None:
            self.row(key, value, NONE, "not known to noded: look whether you need it")
            return
        note = rule.note
        if rule.path:
            try:
                made = rule.convert(value) if rule.convert else value
            except (TypeError, ValueError, AttributeError):
                self.row(key, value, NONE, "a value that noded has not")
                return
            self.set(rule.path, made)
            note = f"{rule.path}; {note}" if note else rule.path
        self.row(key, value, rule.verdict, note)


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of one key.

    Args:
        path: dotted path in noded.toml, "" for none.
        convert: of the value; a TypeError, ValueError or AttributeError of it is a value that noded has not.
    """

    path: str
    verdict: Verdict
    note: str
    convert: Callable[[Any], Any] | None


def maps(path: str, note: str = "", convert: Callable[[Any], Any] | None = None) -> Rule:
    """The same under another name."""
    return Rule(path, MAPS, note, convert)


def differs(note: str, path: str = "", convert: Callable[[Any], Any] | None = None) -> Rule:
    """noded does it in another way."""
    return Rule(path, DIFFERS, note, convert)


def none(note: str) -> Rule:
    """No equivalent."""
    return Rule("", NONE, note, None)


def flat(
    table: Mapping[str, Any], *, prefix: str = "", stop: set[str] | frozenset[str] = frozenset()
) -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values; tables of `stop` are not taken apart."""
    for key, value in table.items():
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and value and name not in stop:
            yield from flat(value, prefix=name, stop=stop)
        elif value != {}:
            yield name, value


def shown(value: Any) -> str:
    """A value as the report has it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


# Conversions that both use.


def level(value: str) -> str:
    """A log level."""
    return {"trace": "debug", "warn": "warning", "fatal": "error", "panic": "error"}.get(value, value)


def duration_seconds(value: str) -> float:
    """A duration of Go, such as 4h0m0s. Raises: ValueError."""
    found = go_duration.seconds(value)
    if found is None:
        raise ValueError(value)
    return found


def pairs(values: Sequence[str]) -> dict[str, str]:
    """A list of NAME=VALUE as a table. Raises: ValueError for one without a name or an equals sign."""
    split = [each.partition("=") for each in values]
    if not all(name.strip() and sign for name, sign, _ in split):
        raise ValueError(values)
    return {name.strip(): value.strip() for name, _, value in split}


def negated(value: Any) -> bool:
    """The opposite of a switch."""
    return not value


def address_or_local(value: str) -> str:
    """An address to listen on; none is this node alone."""
    return value or "127.0.0.1"
