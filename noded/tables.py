"""TOML files as tables that know where each of their keys was written.

A configuration is `/etc/noded/noded.toml` and, beside it, `conf.d/*.toml` in the order of their names.
Tables merge key by key; any other value, arrays too, replaces the earlier one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from noded.errors import InvalidArgument, NotFound

DEFAULT_PATH = Path("/etc/noded/noded.toml")

_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class Located(dict[str, Any]):
    """A table that knows where each of its keys was written, as `FILE:LINE`."""

    def __init__(self, values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        super().__init__(values)
        self.origins = dict(origins)


def origin_of(table: Mapping[str, Any], key: str) -> str:
    """Return `FILE:LINE: ` of a key, "" when it is not known."""
    origin = table.origins.get(key, "") if isinstance(table, Located) else ""
    return f"{origin}: " if origin else ""


def read(path: Path | None = None) -> Located:
    """Read the file, None = the default one, and its drop-ins, merged.

    The default file may be missing; another one may not.

    Raises: NotFound for a missing file; InvalidArgument naming file and line of what is not TOML.
    """
    merged = Located({}, {})
    for file in _files(path or DEFAULT_PATH):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidArgument(f"{file}: not UTF-8: {error.reason} at byte {error.start}") from None
        except OSError as error:
            raise NotFound(f"{file}: cannot read the configuration: {error.strerror}") from None
        merged = merge(merged, parse(text, str(file)))
    return merged


def _files(path: Path) -> Iterator[Path]:
    if path != DEFAULT_PATH or path.exists():
        yield path
    try:
        names = sorted(entry.name for entry in (path.parent / "conf.d").iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise NotFound(f"{path.parent / 'conf.d'}: cannot read the configuration: {error.strerror}") from None
    for name in names:
        if name.endswith(".toml") and not name.startswith("."):
            yield path.parent / "conf.d" / name


def parse(text: str, file: str) -> Located:
    """Parse TOML; each table of the result knows the lines of its keys.

    Raises: InvalidArgument naming file and line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = _TOML_POSITION.search(str(error))
        line = (found[1] if found else None) or len(text.splitlines()) or 1
        raise InvalidArgument(f"{file}:{line}: not TOML: {_TOML_POSITION.sub('', str(error))}") from None
    return _located(values, key_lines(text), file, ())


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line on which each key of valid TOML is first written.

    Without a parser of our own: lines are added to a statement until tomllib understands it alone.
    """
    found: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    statement: list[str] = []
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not statement and line.lstrip()[:1] in ("", "#"):
            continue
        statement.append(line)
        try:
            values = tomllib.loads("\n".join(statement))
        except tomllib.TOMLDecodeError:
            continue
        first = number - len(statement) + 1
        paths = list(_paths(values, ()))
        if statement[0].lstrip().startswith("["):
            header = max(paths, key=len, default=())
            paths = [header[:length] for length in range(1, len(header) + 1)]
        else:
            paths = [header + path for path in paths]
        for path in paths:
            found.setdefault(path, first)
        statement = []
    return found


def _paths(values: Mapping[str, Any], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from _paths(value, (*above, key))


def _located(
    values: Mapping[str, Any], lines: Mapping[tuple[str, ...], int], file: str, above: tuple[str, ...]
) -> Located:
    table = {}
    origins = {}
    for key, value in values.items():
        path = (*above, key)
        table[key] = _located(value, lines, file, path) if isinstance(value, dict) else value
        origins[key] = f"{file}:{lines[path]}" if path in lines else file
    return Located(table, origins)


def merge(base: Located, over: Located) -> Located:
    """Lay one table over another: tables merge, any other value replaces."""
    merged = Located(base, base.origins)
    for key, value in over.items():
        old = base.get(key)
        if isinstance(old, Located) and isinstance(value, Located):
            merged[key] = merge(old, value)
            if not value:
                continue
        else:
            merged[key] = value
        merged.origins[key] = over.origins[key]
    return merged
