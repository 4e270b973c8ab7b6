"""Configuration files: `/etc/noded/noded.toml` and, beside it, `conf.d/*.toml`.

Drop-ins are read in the order of their names. Tables merge key by key; any other value, arrays too,
replaces the earlier one. `render_default` and `render` (`noded.config_text`) write what `load` reads.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from noded.config import Config, HandlerConfig, WorkloadConfig, WorkloadResources
from noded.config_text import documentation, render, render_default
from noded.errors import InvalidArgument, NotFound
from noded.model.cpus import parse_cpus
from noded.options import Located, dotted, origin_of, parse_options, unknown_key

__all__ = [
    "DEFAULT_PATH",
    "RELOADABLE",
    "changed_keys",
    "documentation",
    "load",
    "parse_options",
    "render",
    "render_default",
]

DEFAULT_PATH = Path("/etc/noded/noded.toml")

_HANDLER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TOML_POSITION = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# Fields of HandlerConfig that are keys of its table; `name` is the table's own name.
_HANDLER_KEYS = tuple(
    each.name for each in dataclasses.fields(HandlerConfig) if each.name not in ("name", "options")
)


# What a running daemon takes over from a changed configuration; the rest needs a restart.
# (registries.conf and the CNI directory are read anew by themselves.)
RELOADABLE = frozenset({"log_level", "runtimes", "default_runtime"})


def load(path: Path | None = None) -> Config:
    """Read the file, None = the default one, and its drop-ins.

    The default file may be missing; another one may not.

    Raises: NotFound for a missing file; InvalidArgument naming file, line, key and the nearest valid key.
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
    return interpret(merged)


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


def interpret(table: Located) -> Config:
    """Check a merged table and make the configuration of it.

    Raises: InvalidArgument.
    """
    rest = Located({key: value for key, value in table.items() if key != "runtimes"}, table.origins)
    names = [field.name for field in dataclasses.fields(Config)]
    for key in table:
        if key not in names:
            raise unknown_key(table, key, "", names)
    handlers = _handlers(table)
    config = dataclasses.replace(parse_options(Config, rest, ""), runtimes=handlers)
    where = origin_of(table, "default_runtime")
    if config.default_runtime not in {handler.name for handler in handlers}:
        known = ", ".join(handler.name for handler in handlers)
        raise InvalidArgument(
            f"{where}default_runtime: no handler {config.default_runtime!r} in [runtimes]; there are {known}"
        )
    _check_workloads(config.workloads)
    for key in ("infra_ctr_cpuset", "shared_cpuset"):
        parse_cpus(getattr(config, key), f"{origin_of(table, key)}{key}")
    if config.monitor_cgroup != "pod" and not config.monitor_cgroup.startswith("/"):
        raise InvalidArgument(
            f"{origin_of(table, 'monitor_cgroup')}monitor_cgroup: {config.monitor_cgroup!r} is neither "
            "pod nor an absolute cgroup path"
        )
    return config


def _check_workloads(workloads: Mapping[str, WorkloadConfig]) -> None:
    activated: dict[str, str] = {}
    for name, workload in workloads.items():
        where, key = f"workloads.{name}", workload.activation_annotation
        if not key:
            raise InvalidArgument(f"{where}.activation_annotation: must not be empty")
        if key in activated:
            raise InvalidArgument(f"{where}.activation_annotation: {activated[key]} has {key!r} already")
        activated[key] = where
        check_workload_resources(workload.resources, f"{where}.resources")


def check_workload_resources(resources: WorkloadResources, where: str) -> None:
    """Raises: InvalidArgument naming the key below `where`."""
    parse_cpus(resources.cpuset, f"{where}.cpuset")
    if resources.cpulimit and resources.cpuquota:
        raise InvalidArgument(f"{where}: cpulimit and cpuquota exclude each other")


def changed_keys(old: Config, new: Config) -> set[str]:
    """Return the dotted names of keys whose values differ, e.g. `images.pinned`; `runtimes` counts as one."""
    changed = set()
    for field in dataclasses.fields(Config):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if dataclasses.is_dataclass(before):
            inner = (inner.name for inner in dataclasses.fields(before))
            changed |= {f"{field.name}.{key}" for key in inner if getattr(before, key) != getattr(after, key)}
        elif before != after:
            changed.add(field.name)
    return changed


def _handlers(table: Located) -> tuple[HandlerConfig, ...]:
    """Return the configured handlers over those that exist without configuration."""
    handlers = {handler.name: handler for handler in Config().runtimes}
    tables = table.get("runtimes", {})
    if not isinstance(tables, dict):
        raise InvalidArgument(f"{origin_of(table, 'runtimes')}runtimes: expected a table of handlers")
    for name, values in tables.items():
        where = dotted("runtimes", name)
        origin = origin_of(tables, name)
        if not _HANDLER_NAME.fullmatch(name):
            raise InvalidArgument(
                f"{origin}{where}: no RuntimeClass can name this; use lower-case letters, digits and -"
            )
        if not isinstance(values, Located):
            raise InvalidArgument(f"{origin}{where}: expected a table")
        handlers[name] = _handler(name, values, handlers.get(name), origin)
    return tuple(handlers.values())


def _handler(name: str, values: Located, base: HandlerConfig | None, origin: str) -> HandlerConfig:
    if "type" not in values and base is None:
        raise InvalidArgument(f"{origin}runtimes.{name}.type is missing: set the runtime type of a plugin")
    keys: dict[str, Any] = {"name": name, "type": base.type if base else ""}
    keys.update((key, values[key]) for key in _HANDLER_KEYS if key in values)
    checked = parse_options(HandlerConfig, Located(keys, values.origins), f"runtimes.{name}")
    options = {key: value for key, value in values.items() if key not in _HANDLER_KEYS}
    for key in ("seccomp_profile", "cni_conf_dir", "base_spec"):
        value = getattr(checked, key)
        if value and not Path(value).is_absolute():
            where = origin_of(values, key)
            raise InvalidArgument(f"{where}runtimes.{name}.{key}: {value!r} is not an absolute path")
    return dataclasses.replace(checked, options=Located(options, values.origins))
