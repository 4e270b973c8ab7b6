"""The configuration as TOML text: the documented default file, and one in effect.

Documentation of a key is its comment in the source of `noded.config`, read at run time: there is no
second place to keep it.
"""

from __future__ import annotations

import ast
import dataclasses
import datetime
import inspect
import io
import json
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from noded.config import Config, HandlerConfig

_SECTIONS = ("network", "images", "streaming", "metrics", "compat", "checkpoint", "tracing", "nri")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def documentation(cls: type) -> Mapping[str, str]:
    """Return what the comments in a class's source, that of `noded.config` or a plugin, say of its fields.

    Raises: OSError when there is no source.
    """
    source = inspect.getsource(sys.modules[cls.__module__])
    comments: dict[int, str] = {}
    alone: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("# ").strip()
            comments[token.start[0]] = "" if words.startswith(("fmt:", "noqa")) else words
            if not token.line[: token.start[1]].strip():
                alone.add(token.start[0])
    body = next(
        n for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__
    ).body
    documented = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = [node.end_lineno or node.lineno]
            above = node.lineno - 1
            while above in alone:
                lines.insert(0, above)
                above -= 1
            documented[node.target.id] = " ".join(filter(None, (comments.get(line, "") for line in lines)))
    return documented


def render_default() -> str:
    """Return a file with every key, commented out at its default, under its documentation."""
    lines = ["# noded.toml: every key with its default. Remove the # before a key to change it.", ""]
    lines += _documented(Config, Config(), skip=(*_SECTIONS, "runtimes"))
    for name in _SECTIONS:
        section = getattr(Config(), name)
        lines += [f"# {documentation(Config)[name]}", f"[{name}]", "", *_documented(type(section), section)]
    lines += [f"# {documentation(Config)['runtimes']}"]
    for handler in Config().runtimes:
        lines += [
            f"[runtimes.{handler.name}]",
            "",
            *_documented(HandlerConfig, handler, skip=("name", "options")),
        ]
    lines += ["# Other keys of a handler belong to its type: see `noded plugins list`."]
    return "\n".join(lines) + "\n"


def defaults() -> Iterator[tuple[str, str, str]]:
    """Every key that `render_default` shows: dotted name, default as TOML, meaning."""
    yield from _keys(Config, Config(), (*_SECTIONS, "runtimes"))
    for name in _SECTIONS:
        section = getattr(Config(), name)
        for key, shown, meaning in _keys(type(section), section):
            yield f"{name}.{key}", shown, meaning
    for handler in Config().runtimes:
        for key, shown, meaning in _keys(HandlerConfig, handler, ("name", "options")):
            yield f"runtimes.{handler.name}.{key}", shown, meaning


def _documented(cls: type[Any], instance: Any, skip: tuple[str, ...] = ()) -> list[str]:
    return [
        line
        for key, shown, meaning in _keys(cls, instance, skip)
        for line in (f"# {meaning}", f"#{key} = {shown}", "")
    ]


def _keys(cls: type[Any], instance: Any, skip: tuple[str, ...] = ()) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(cls):
        if field.name not in skip:
            value = getattr(instance, field.name)
            shown = '""' if value is None else _value(value)  # as `parse_options` reads it
            yield field.name, shown, documentation(cls)[field.name]


def render(config: Config) -> str:
    """Return a configuration as TOML; `load` gives an equal one."""
    top, tables = _split(config, skip=("runtimes",))
    lines = [*top]
    for name, value in tables:
        lines += ["", f"[{name}]"]
        if dataclasses.is_dataclass(value):
            plain, nested = _split(value)
            lines += plain
            lines += [f"{_key(key)} = {_value(inner)}" for key, inner in nested]
        else:
            lines += [f"{_key(key)} = {_value(inner)}" for key, inner in value.items()]
    for handler in config.runtimes:
        plain, nested = _split(handler, skip=("name", "options"))
        lines += ["", f"[runtimes.{_key(handler.name)}]", *plain]
        lines += [f"{_key(key)} = {_value(value)}" for key, value in (*nested, *handler.options.items())]
    return "\n".join(lines) + "\n"


def render_table(table: Mapping[str, Any]) -> str:
    """Return a configuration that says only what is in `table`, which is shaped as the file is."""
    sections = [name for name in table if dataclasses.is_dataclass(getattr(Config(), name, None))]
    plain = {key: value for key, value in table.items() if key not in (*sections, "runtimes")}
    blocks = [("", plain), *((f"[{name}]", table[name]) for name in sections)]
    blocks += [(f"[runtimes.{_key(name)}]", each) for name, each in table.get("runtimes", {}).items()]
    return "\n".join(
        "".join(
            [
                f"{head}\n" if head else "",
                *(f"{_key(key)} = {_value(value)}\n" for key, value in each.items()),
            ]
        )
        for head, each in blocks
        if each
    )


def _split(instance: Any, skip: tuple[str, ...] = ()) -> tuple[list[str], list[tuple[str, Any]]]:
    """Return the lines of plain values and, apart, those that are tables; None is left out."""
    plain: list[str] = []
    tables: list[tuple[str, Any]] = []
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if field.name in skip or value is None:
            continue
        if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
            tables.append((field.name, value))
        else:
            plain.append(f"{_key(field.name)} = {_value(value)}")
    return plain, tables


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _string(str(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if dataclasses.is_dataclass(value):
        return _value({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        return "{ " + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + " }"
    return "[" + ", ".join(_value(item) for item in value) + "]"
