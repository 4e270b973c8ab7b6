"""`noded plugins describe NAME`: what one plugin or handler is, can do and can be told.

Needs no daemon: it loads plugins and probes runtimes as the daemon does at its start.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import os
import tempfile
from pathlib import Path
from typing import Any, cast

import trio

from noded import hookspecs, logs, settings
from noded.cli.documents.plugins import Features, PluginDescribed, PluginOption
from noded.cli.table import print_json
from noded.config import Config
from noded.config_text import documentation
from noded.errors import NotFound
from noded.host import facts
from noded.model.extension import Finding
from noded.model.paths import Layout
from noded.model.runtime import RuntimeHost, RuntimeType
from noded.plugins import (
    HandlerReport,
    Hooks,
    PluginReport,
    PluginSet,
    describe_handlers,
    describe_plugins,
    discover,
    open_handlers_of,
)

_SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"  # often not on an unprivileged user's PATH


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """Everything that plugins say on this node."""

    plugins: PluginSet
    reports: list[PluginReport]
    handlers: list[HandlerReport]
    findings: list[tuple[str, Finding]]


def describe(arguments: argparse.Namespace) -> int:
    """Print one plugin, named by itself, its distribution, a type or a handler. Raises NotFound."""
    logs.setup("error", "console")
    node = look(settings.load(Path(arguments.config)))
    report = choose(arguments.name, node)
    document = _document(report, node)
    if arguments.json:
        print_json(document)
    else:
        print("\n".join(_lines(document)))
    return 0


def look(config: Config, *, diagnose: bool = True) -> Node:
    """Load plugins, open handlers in a directory of their own, probe them and ask for findings."""
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PROGRAMS}"
    plugins = discover(config.disabled_plugins, order=config.plugin_order)
    # Runtimes may write wrappers into the state directory: the daemon's own is not for a look.
    with tempfile.TemporaryDirectory(prefix="noded-plugins-") as state:
        host = RuntimeHost(
            facts=facts.collect(config),
            layout=Layout(config.root, Path(state)),
            conmon_path=config.conmon,
            log_level=config.log_level,
            stalled_seconds=config.stalled_seconds,
            log_max_bytes=config.container_log_max_bytes,
        )
        handlers = open_handlers_of(plugins, config, host)

        async def ask() -> tuple[list[HandlerReport], list[tuple[str, Finding]]]:
            return await describe_handlers(handlers), await Hooks(plugins).diagnose(host) if diagnose else []

        reports, findings = trio.run(ask)
    return Node(plugins, describe_plugins(plugins, handlers), reports, findings)


def choose(name: str, node: Node) -> PluginReport:
    """The plugin of a name. Raises NotFound listing the names that there are."""
    for report in node.reports:
        if name in (report.name, report.distribution, *report.types, *report.handlers):
            return report
    known = ", ".join(sorted(report.name for report in node.reports)) or "none"
    raise NotFound(f"no plugin, distribution, runtime type or handler is named {name!r}; plugins: {known}")


def _document(report: PluginReport, node: Node) -> PluginDescribed:
    types = [offered for name in report.types for offered in _offered(node.plugins, name)]
    return {
        "name": report.name,
        "distribution": report.distribution,
        "version": report.version,
        "problem": report.problem,
        "hooks": {name: _first_line(getattr(hookspecs, name).__doc__) for name in report.hooks},
        "runtime_types": {
            each.name: {"programs": list(each.binaries), "options": _options(each.options)} for each in types
        },
        "handlers": {
            handler.name: {
                "type": handler.type,
                "features": features_document(handler),
                "programs": {name: path or None for name, path in handler.binaries},
                "unavailable_because": handler.unavailable,
            }
            for handler in node.handlers
            if handler.name in report.handlers
        },
        "findings": [
            {"subject": finding.subject, "ok": finding.ok, "detail": finding.detail}
            for who, finding in node.findings
            if who == report.distribution
        ],
    }


def features_document(handler: HandlerReport) -> Features | None:
    """What a handler can do, as --json has it."""
    # The keys are the fields of the class: a test compares them.
    return cast("Features", dataclasses.asdict(handler.features)) if handler.features else None


def _offered(plugins: PluginSet, name: str) -> list[RuntimeType]:
    found = plugins.types.get(name)
    return [found[0]] if found is not None else []  # None: another distribution offers it, too


def _options(cls: type[Any]) -> dict[str, PluginOption]:
    """The options of a type with their defaults and, where the source is there, their comments."""
    try:
        documented = documentation(cls)
    except (OSError, TypeError, StopIteration):
        documented = {}
    result: dict[str, PluginOption] = {}
    for field in dataclasses.fields(cls):
        if field.default_factory is not dataclasses.MISSING:
            default: Any = field.default_factory()
        else:
            default = None if field.default is dataclasses.MISSING else field.default
        result[field.name] = {"default": default, "meaning": documented.get(field.name, "")}
    return result


def _lines(document: PluginDescribed) -> list[str]:
    lines = [f"plugin         {document['name']}"]
    lines.append(f"distribution   {document['distribution']} {document['version']}".rstrip())
    if document["problem"]:
        lines.append(f"not in use     {document['problem']}")
    lines += ["", "hooks"]
    lines += [f"  {name:<22} {text}" for name, text in document["hooks"].items()] or ["  none"]
    for name, kind in document["runtime_types"].items():
        lines += ["", f"runtime type {name}: options of a [runtimes.HANDLER] with type = {name!r}"]
        for key, option in kind["options"].items():
            lines.append(f"  {key} = {_shown(option['default'])}")
            if option["meaning"]:
                lines.append(f"      {option['meaning']}")
    for name, handler in document["handlers"].items():
        lines += ["", f"handler {name} (type {handler['type']})"]
        if handler["unavailable_because"]:
            lines.append(f"  unavailable: {handler['unavailable_because']}")
        for program, path in handler["programs"].items():
            lines.append(f"  program {program}: {path or 'not found'}")
        for feature, value in (handler["features"] or {}).items():
            lines.append(f"  {feature.replace('_', ' ')}: {_shown(value)}")
    if document["findings"]:
        lines += ["", "findings"]
    for finding in document["findings"]:
        lines.append(
            f"  {'ok     ' if finding['ok'] else 'PROBLEM'} {finding['subject']}: {finding['detail']}"
        )
    return lines


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value or repr(value)
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)


def _first_line(text: str | None) -> str:
    return next(iter(inspect.cleandoc(text or "").splitlines()), "")
