"""Plugins: finding them, calling their hooks without trusting them, making handlers of their types.

A plugin that is broken, slow or in conflict makes its own handlers unavailable, with the reason;
it never stops the daemon.
"""

from __future__ import annotations

from noded.plugins.describe import HandlerReport, PluginReport, describe_handlers, describe_plugins
from noded.plugins.discovery import Plugin, PluginSet, discover
from noded.plugins.edits import apply_edits
from noded.plugins.handlers import Handler, open_handler, open_handlers, open_handlers_of
from noded.plugins.hooks import Hooks

__all__ = [
    "Handler",
    "HandlerReport",
    "Hooks",
    "Plugin",
    "PluginReport",
    "PluginSet",
    "apply_edits",
    "describe_handlers",
    "describe_plugins",
    "discover",
    "open_handler",
    "open_handlers",
    "open_handlers_of",
]
