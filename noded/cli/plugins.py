"""`noded plugins list`: what is installed, which handlers it serves, and why one is unavailable.

Needs no daemon: it loads plugins and probes runtimes as the daemon does at its start. A daemon that
runs tells which hooks it has muted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from noded import logs, settings
from noded.cli.client import Daemon, wait_for
from noded.cli.documents.plugins import HandlerListed, PluginListed, PluginsListed
from noded.cli.plugins_describe import features_document, look
from noded.cli.table import print_json, print_table
from noded.config import Config
from noded.errors import NodedError
from noded.model.runtime import RuntimeFeatures
from noded.plugins import HandlerReport, PluginReport
from noded.proto.noded.admin import v1 as admin

_ASK_SECONDS = 2.0  # for a daemon that may not run
_SHOWN_FEATURES = {
    "recursive_read_only_mounts": "rro mounts",
    "user_namespaces": "user namespaces",
    "idmap_mounts": "idmapped mounts",
    "checkpoint": "checkpoint",
}


def list_plugins(arguments: argparse.Namespace) -> int:
    """Print plugins and handlers; exits 0 also when some are unavailable, which is what it is for."""
    logs.setup("error", "console")  # what would be a warning is in the tables
    config = settings.load(Path(arguments.config))
    node, muted = look(config, diagnose=False), _muted(config)
    plugins, handlers = node.reports, node.handlers
    if arguments.json:
        listed: PluginsListed = {
            "plugins": [_plugin_document(plugin, muted) for plugin in plugins],
            "handlers": [_handler_document(handler) for handler in handlers],
        }
        print_json(listed)
        return 0
    print_table(
        ("PLUGIN", "DISTRIBUTION", "VERSION", "HANDLERS", "PROBLEM"),
        [
            (
                plugin.name,
                plugin.distribution,
                plugin.version,
                ", ".join(plugin.handlers) or "-",
                _problem(plugin, muted),
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


def _muted(config: Config) -> dict[str, list[str]]:
    """Hooks that the running daemon no longer calls, by plugin; nothing where none runs."""

    async def ask() -> admin.InfoResponse:
        async with Daemon(f"unix://{config.listen}") as daemon:
            return await daemon.admin("Info", admin.InfoRequest(), admin.InfoResponse, _ASK_SECONDS)

    try:
        told = json.loads(wait_for(ask()).json).get("plugins", ())
    except NodedError:
        return {}
    return {plugin["name"]: plugin["muted"] for plugin in told if plugin["muted"]}


def _problem(plugin: PluginReport, muted: dict[str, list[str]]) -> str:
    if hooks := muted.get(plugin.name):
        return f"muted after failures, see the daemon's log: {', '.join(hooks)}"
    return _first_line(plugin.problem)


def _features(features: RuntimeFeatures | None) -> str:
    return ", ".join(text for name, text in _SHOWN_FEATURES.items() if features and getattr(features, name))


def _plugin_document(plugin: PluginReport, muted: dict[str, list[str]]) -> PluginListed:
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "hooks": list(plugin.hooks),
        "runtime_types": list(plugin.types),
        "handlers": list(plugin.handlers),
        "problem": plugin.problem,
        "muted": muted.get(plugin.name, []),
    }


def _handler_document(handler: HandlerReport) -> HandlerListed:
    return {
        "name": handler.name,
        "type": handler.type,
        "distribution": handler.distribution,
        "version": handler.version,
        "binaries": [{"name": name, "path": path or None} for name, path in handler.binaries],
        "features": features_document(handler),
        "available": not handler.unavailable,
        "unavailable_because": handler.unavailable,
    }


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
