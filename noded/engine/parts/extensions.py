"""What plugins bring: runtime handlers, hooks, observers."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from noded.engine.handlers import Handlers
from noded.engine.observers import Observers
from noded.engine.parts.ground import Ground
from noded.model.runtime import RuntimeHost
from noded.plugins import Hooks, PluginSet, discover, open_handlers_of


@dataclass(frozen=True, slots=True)
class Extensions:
    """
    Args:
        host: what runtimes are told of the node.
    """

    plugins: PluginSet
    host: RuntimeHost
    handlers: Handlers
    hooks: Hooks
    observers: Observers


async def open_extensions(ground: Ground) -> Extensions:
    """Find the plugins and open the configured handlers.

    A broken plugin makes its handlers unavailable; only a configuration that contradicts itself raises.
    """
    config = ground.config
    host = RuntimeHost(
        facts=ground.facts,
        layout=ground.layout,
        conmon_path=config.conmon,
        log_level=config.log_level,
        stalled_seconds=config.stalled_seconds,
        log_max_bytes=config.container_log_max_bytes,
    )
    plugins = await trio.to_thread.run_sync(discover, config.disabled_plugins, None, config.plugin_order)
    opened = await trio.to_thread.run_sync(open_handlers_of, plugins, config, host)
    hooks = Hooks(plugins)
    return Extensions(
        plugins=plugins,
        host=host,
        handlers=Handlers(opened, config.default_runtime, config.workloads),
        hooks=hooks,
        observers=Observers(hooks),
    )
