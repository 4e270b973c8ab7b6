"""What `noded plugins list` shows, as plain values."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from noded.errors import NodedError
from noded.model.runtime import RuntimeFeatures
from noded.plugins.discovery import Plugin, PluginSet
from noded.plugins.handlers import Handler

_PROBE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class HandlerReport:
    """One handler. `binaries` are (name, path found or ""); `features` is None when it is unavailable."""

    name: str
    type: str
    distribution: str
    version: str
    binaries: tuple[tuple[str, str], ...]
    features: RuntimeFeatures | None
    unavailable: str


@dataclass(frozen=True, slots=True)
class PluginReport:
    """One plugin with the names of the handlers that its types serve."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...]
    types: tuple[str, ...]
    handlers: tuple[str, ...]
    problem: str


def describe_plugins(plugins: PluginSet, handlers: Mapping[str, Handler]) -> list[PluginReport]:
    """Describe every installed plugin, broken and disabled ones too."""

    def served(plugin: Plugin) -> tuple[str, ...]:
        offered = {name for name, (_, owner) in plugins.types.items() if owner is plugin}
        return tuple(handler.name for handler in handlers.values() if handler.type in offered)

    return [
        PluginReport(
            plugin.name,
            plugin.distribution,
            plugin.version,
            plugin.hooks,
            plugin.types,
            served(plugin),
            plugin.problem,
        )
        for plugin in plugins.plugins
    ]


async def describe_handlers(handlers: Mapping[str, Handler]) -> list[HandlerReport]:
    """Probe every handler, at the same time, and describe it. Never raises for one of them."""
    reports: dict[str, HandlerReport] = {}

    async def describe(handler: Handler) -> None:
        features, why = await _probe(handler)
        reports[handler.name] = HandlerReport(
            name=handler.name,
            type=handler.type,
            distribution=handler.distribution,
            version=handler.version,
            binaries=tuple((name, _which(name)) for name in handler.binaries),
            features=features,
            unavailable=why,
        )

    async with trio.open_nursery() as nursery:
        for handler in handlers.values():
            nursery.start_soon(describe, handler)
    return [reports[name] for name in handlers]


async def _probe(handler: Handler) -> tuple[RuntimeFeatures | None, str]:
    if handler.runtime is None:
        return None, handler.unavailable
    try:
        with trio.fail_after(_PROBE_SECONDS):
            return await handler.runtime.features(), ""
    except trio.TooSlowError:
        return None, f"its runtime did not tell its features within {_PROBE_SECONDS:g} s"
    except NodedError as error:
        return None, str(error)
    except Exception as error:
        return None, f"{handler.distribution} failed: {type(error).__name__}: {error}"


def _which(name: str) -> str:
    return os.path.abspath(found) if (found := shutil.which(name)) else ""
