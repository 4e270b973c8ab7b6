"""From configuration files (`noded.tables`) to values; `noded.config_text` writes what `load` reads."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noded.config import Config, HandlerConfig, WorkloadConfig, WorkloadResources
from noded.errors import InvalidArgument
from noded.model.cpus import parse_cpus
from noded.options import dotted, parse_options, unknown_key
from noded.tables import Located, origin_of, read

_HANDLER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

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
    return interpret(read(path))


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
    for key in ("seccomp_profile", "privileged_seccomp_profile", "cni_conf_dir", "base_spec"):
        value = getattr(checked, key)
        if value and not Path(value).is_absolute():
            where = origin_of(values, key)
            raise InvalidArgument(f"{where}runtimes.{name}.{key}: {value!r} is not an absolute path")
    return dataclasses.replace(checked, options=Located(options, values.origins))
