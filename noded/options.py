"""From a table of keys and values to a frozen dataclass, with errors that say where and what.

The dataclass is the only declaration: names, types and bounds of keys are its annotations. Used for
noded's own configuration and for the options of runtime types, so both are refused alike.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from noded.errors import InvalidArgument
from noded.tables import origin_of

T = TypeVar("T")

_TOML_NAMES = {
    bool: "a boolean", int: "an integer", float: "a number", str: "a string",
    list: "an array", dict: "a table",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class AtLeast:
    """Lower bound of a number, used as `Annotated[int, AtLeast(1)]`."""

    value: float


def parse_options(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Make an instance of a dataclass from a table; absent keys take the field's default.

    Understood types: bool, int, float, str, Path (absolute), StrEnum, Literal, tuple[X, ...],
    frozenset[X], Mapping[str, X], nested dataclasses, X | None, Any; Annotated with AtLeast. TOML has
    no null: for `Path | None` the empty string is None.

    Args:
        where: dotted name of the table, e.g. `runtimes.runc`; "" for the top level.

    Raises: InvalidArgument naming file and line where known, the key, and the nearest valid key.
    """
    hints = get_type_hints(cls, include_extras=True)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type] # T is a dataclass
    for key in table:
        if key not in fields:
            raise unknown_key(table, key, where, fields)
    values = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(table, name, table[name], hints[name], where)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InvalidArgument(f"{_table_origin(table)}{dotted(where, name)} is missing: set it")
    return cls(**values)


def unknown_key(table: Mapping[str, Any], key: str, where: str, valid: Iterable[str]) -> InvalidArgument:
    """Return the error for a key that does not exist."""
    hint = _nearest(key, valid)
    return InvalidArgument(f"{origin_of(table, key)}unknown key {dotted(where, key)}; {hint}")


def dotted(where: str, key: str) -> str:
    """Return the whole name of a key."""
    return f"{where}.{key}" if where else key


def _nearest(word: str, valid: Iterable[str]) -> str:
    names = sorted(valid)
    import difflib

    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return f"valid are {', '.join(names)}" if names else "none is valid here"


def _table_origin(table: Mapping[str, Any]) -> str:
    return origin_of(table, next(iter(table), ""))


def _convert(table: Mapping[str, Any], key: str, value: Any, hint: Any, where: str) -> Any:
    name = dotted(where, key)

    def wrong(expected: str) -> InvalidArgument:
        got = _TOML_NAMES.get(type(value), type(value).__name__)
        shown = "" if isinstance(value, list | dict) else f" {value!r}"
        return InvalidArgument(f"{origin_of(table, key)}{name}: expected {expected}, got {got}{shown}")

    def bad(problem: str) -> InvalidArgument:
        return InvalidArgument(f"{origin_of(table, key)}{name}: {problem}")

    if get_origin(hint) is Annotated:
        inner, *bounds = get_args(hint)
        converted = _convert(table, key, value, inner, where)
        for bound in bounds:
            if isinstance(bound, AtLeast) and converted is not None and converted < bound.value:
                raise bad(f"{value!r} is less than {bound.value:g}")
        return converted
    if hint is Any:
        return value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if hint == Path | None and value == "":
            return None
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _convert(table, key, value, inner, where)
    if origin is Literal or (isinstance(hint, type) and issubclass(hint, StrEnum)):
        choices = list(arguments) if origin is Literal else [str(member) for member in hint]
        if value not in choices:
            raise bad(f"{value!r} is none of {', '.join(map(str, choices))}; {_nearest(str(value), choices)}")
        return value if origin is Literal else hint(value)
    if origin in (tuple, frozenset):
        if not isinstance(value, list):
            raise wrong("an array")
        return origin(_convert(table, key, item, arguments[0], where) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise wrong("a table")
        return {inner: _convert(value, inner, item, arguments[1], name) for inner, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise wrong("a table")
        return parse_options(typing.cast("type[Any]", hint), value, name)
    return _scalar(value, hint, wrong, bad)


def _scalar(
    value: Any,
    hint: Any,
    wrong: typing.Callable[[str], InvalidArgument],
    bad: typing.Callable[[str], InvalidArgument],
) -> Any:
    if hint is Path:
        if not isinstance(value, str):
            raise wrong("a path")
        if not value.startswith("/") or "\0" in value:
            raise bad(f"{value!r} is not an absolute path")
        return Path(value)
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise bad(f"{value!r} is not a finite number")
        return float(value)
    if hint not in _TOML_NAMES or type(value) is not hint:
        raise wrong(_TOML_NAMES.get(hint, str(hint)))
    if isinstance(value, str) and "\0" in value:
        raise bad("has a NUL character")
    return value
