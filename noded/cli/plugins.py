"""`noded plugins list`: what is installed, which handlers it serves, and why one is unavailable.

Needs no daemon: it loads plugins and probes runtimes as the daemon does at its start.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
from pathlib import Path
from typing import Any

import trio

from noded import logs, settings
from noded.cli.table import print_json, print_table
from noded.config import Config
from noded.host import facts
from noded.model.paths import Layout
from noded.model.runtime import RuntimeFeatures, RuntimeHost
from noded.plugins import (
    HandlerReport,
    PluginReport,
    describe_handlers,
    describe_plugins,
    discover,
    open_handlers_of,
)

_SYSTEM_PROGRAMS = "/usr/local/sbin:/usr/sbin:/sbin"  # often not on an unprivileged user's PATH
_SHOWN_FEATURES = {
    "recursive_read_only_mounts": "rro mounts",
    "user_namespaces": "user namespaces",
    "idmap_mounts": "idmapped mounts",
    "checkpoint": "checkpoint",
}


def list_plugins(arguments: argparse.Namespace) -> int:
    """Print plugins and handlers; exits 0 also when some are unavailable, which is what it is for."""
    logs.setup("error", "console")  # what would be a warning is in the tables
    os.environ["PATH"] = f"{os.environ.get('PATH', os.defpath)}:{_SYSTEM_PROGRAMS}"
    plugins, handlers = _describe(settings.load(Path(arguments.config)))
    if arguments.json:
        print_json(
            {
                "plugins": [_plugin_document(plugin) for plugin in plugins],
                "handlers": [_handler_document(handler) for handler in handlers],
            }
        )
        return 0
    print_table(
        ("PLUGIN", "DISTRIBUTION", "VERSION", "HANDLERS", "PROBLEM"),
        [
            (
                plugin.name,
                plugin.distribution,
                plugin.version,
                ", ".join(plugin.handlers) or "-",
                _first_line(plugin.problem),
            )
            for plugin in plugins
        ],
    )
    print()
    print_table(
        ("HANDLER", "TYPE", "RUNTIME", "BINARIES", "FEATURES", "UNAVAILABLE BECAUSE"),
        [
            (
                handler.name,
                handler.type,
                handler.features.version if handler.features else "-",
                ", ".join(path or f"{name} (not found)" for name, path in handler.binaries) or "-",
                _features(handler.features) or "-",
                _first_line(handler.unavailable),
            )
            for handler in handlers
        ],
    )
    return 0


def _describe(config: Config) -> tuple[list[PluginReport], list[HandlerReport]]:
    found = discover(config.disabled_plugins)
    # Runtimes may write wrappers into the state directory: the daemon's own is not for a look.
    with tempfile.TemporaryDirectory(prefix="noded-plugins-") as state:
        host = RuntimeHost(
            facts=facts.collect(config),
            layout=Layout(config.root, Path(state)),
            conmon_path=config.conmon,
            log_level=config.log_level,
        )
        handlers = open_handlers_of(found, config, host)
        return describe_plugins(found, handlers), trio.run(describe_handlers, handlers)


def _features(features: RuntimeFeatures | None) -> str:
    return ", ".join(text for name, text in _SHOWN_FEATURES.items() if features and getattr(features, name))


def _plugin_document(plugin: PluginReport) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "hooks": list(plugin.hooks),
        "runtime_types": list(plugin.types),
        "handlers": list(plugin.handlers),
        "problem": plugin.problem,
    }


def _handler_document(handler: HandlerReport) -> dict[str, Any]:
    return {
        "name": handler.name,
        "type": handler.type,
        "distribution": handler.distribution,
        "version": handler.version,
        "binaries": [{"name": name, "path": path or None} for name, path in handler.binaries],
        "features": dataclasses.asdict(handler.features) if handler.features else None,
        "available": not handler.unavailable,
        "unavailable_because": handler.unavailable,
    }


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
