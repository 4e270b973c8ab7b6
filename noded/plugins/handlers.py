"""Handlers: configured instances of the runtime types that plugins offer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from noded.config import Config, HandlerConfig
from noded.errors import NodedError
from noded.model.runtime import Runtime, RuntimeHost
from noded.options import parse_options
from noded.plugins.deadline import call_within, reason
from noded.plugins.discovery import PluginSet, discover

_log = structlog.get_logger(__name__)

_OPEN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Handler:
    """A handler as RuntimeClasses name it. `unavailable` says why `runtime` is None."""

    name: str
    type: str
    runtime: Runtime | None
    config: HandlerConfig
    distribution: str = ""
    version: str = ""
    unavailable: str = ""
    binaries: tuple[str, ...] = ()


def open_handlers(config: Config, host: RuntimeHost) -> dict[str, Handler]:
    """Discover plugins and open all configured handlers. Blocks; never raises for one of them."""
    return open_handlers_of(discover(config.disabled_plugins, order=config.plugin_order), config, host)


def open_handlers_of(plugins: PluginSet, config: Config, host: RuntimeHost) -> dict[str, Handler]:
    """Open all configured handlers with plugins that have been discovered before."""
    return {each.name: open_handler(plugins, each, host) for each in config.runtimes}


def open_handler(plugins: PluginSet, config: HandlerConfig, host: RuntimeHost) -> Handler:
    """Open one handler. Blocks for up to 10 s; never raises."""
    offered = plugins.types.get(config.type)
    if offered is None:
        return _unavailable(Handler(config.name, config.type, None, config), plugins.why_missing(config.type))
    runtime_type, plugin = offered
    closed = Handler(
        config.name, config.type, None, config, plugin.distribution, plugin.version,
        binaries=binaries_of(runtime_type.binaries, config),
    )  # fmt: skip
    try:
        options: Any = parse_options(runtime_type.options, config.options, f"runtimes.{config.name}")
        runtime = call_within(
            _OPEN_SECONDS,
            lambda: runtime_type.open(config.name, options, host),
            f"opening handler {config.name!r} with {plugin.distribution}",
        )
    except NodedError as error:
        return _unavailable(closed, str(error))
    except BaseException as error:  # sys.exit() of a plugin, too, as in `discover`
        return _unavailable(closed, f"{plugin.distribution} could not open it: {reason(error)}")
    return Handler(
        config.name,
        config.type,
        runtime,
        config,
        plugin.distribution,
        plugin.version,
        binaries=closed.binaries,
    )


def binaries_of(declared: tuple[str, ...], config: HandlerConfig) -> tuple[str, ...]:
    """Programs that the handler needs: the type's, the first replaced by the handler's own `path`."""
    path = config.options.get("path")
    return (path, *declared[1:]) if isinstance(path, str) and path and declared else declared


def _unavailable(handler: Handler, why: str) -> Handler:
    _log.warning("handler_unavailable", handler=handler.name, type=handler.type, reason=why)
    return Handler(
        handler.name,
        handler.type,
        None,
        handler.config,
        handler.distribution,
        handler.version,
        why,
        handler.binaries,
    )
