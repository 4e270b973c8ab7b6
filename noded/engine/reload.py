"""Changing runtime handlers while pods run.

A handler whose table is the same stays as it is. A changed one is opened anew for new pods; pods that
there are keep the runtime that they were made with, until the daemon restarts. A table that cannot be
used changes nothing: what worked goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog
import trio

from noded.config import Config, HandlerConfig
from noded.engine.handlers import Handlers
from noded.engine.registry import Registry
from noded.engine.sandbox_ladder import SandboxLadder
from noded.errors import NodedError
from noded.model.runtime import RuntimeHost
from noded.plugins import Handler, PluginSet, open_handler

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of each handler: names, for `kept` with the reason why its new table is not in force."""

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    kept: Mapping[str, str] | None = None


class Reload:
    """Carries a new configuration to the handlers. Call it from one task at a time."""

    def __init__(
        self,
        *,
        plugins: PluginSet,
        host: RuntimeHost,
        handlers: Handlers,
        registry: Registry,
        sandboxes: SandboxLadder,
    ) -> None:
        self._plugins = plugins
        self._host = host
        self._handlers = handlers
        self._registry = registry
        self._sandboxes = sandboxes

    async def apply(self, config: Config) -> Reloaded:
        """Put the handlers of a configuration in force. Never raises for one of them.

        Cancellation: nothing has changed, or everything.
        """
        self._hold_runtimes()
        wanted = {table.name: table for table in config.runtimes}
        # Opened outside of the table of handlers, which stays as it is until all is known.
        opened: dict[str, tuple[Handler, str]] = {}

        async def prepare(table: HandlerConfig) -> None:
            opened[table.name] = await self._prepared(table)

        async with trio.open_nursery() as nursery:
            for table in wanted.values():
                nursery.start_soon(prepare, table)
        old = self._handlers.opened
        kept = {name: why for name, (_, why) in opened.items() if why}
        new = {name: opened[name][0] for name in wanted}
        self._handlers.replace(new, config.default_runtime)
        await self._handlers.probe()
        result = Reloaded(
            added=tuple(sorted(new.keys() - old.keys())),
            changed=tuple(sorted(name for name in new.keys() & old.keys() if new[name] is not old[name])),
            removed=tuple(sorted(old.keys() - new.keys())),
            kept=kept,
        )
        for name, why in kept.items():
            log.error("the old table of a runtime handler stays in force", handler=name, reason=why)
        log.info("runtime handlers", added=result.added, changed=result.changed, removed=result.removed)
        return result

    def _hold_runtimes(self) -> None:
        """Have every pod remember its runtime, which its handler may not be much longer."""
        for sandbox in self._registry.sandboxes():
            try:
                self._sandboxes.open_runtime(sandbox)
            except NodedError:
                continue  # it has none now; a new table may bring it

    async def _prepared(self, table: HandlerConfig) -> tuple[Handler, str]:
        """The handler for a table; with the reason when it is the old one, which works better."""
        old = self._handlers.opened.get(table.name)
        if old is not None and old.config == table and old.runtime is not None:
            return old, ""
        if old is not None and old.runtime is not None and _same_runtime(old.config, table):
            return replace(old, config=table), ""
        new = await trio.to_thread.run_sync(open_handler, self._plugins, table, self._host)
        problem = await self._handlers.problem_of(new)
        if problem and old is not None and table.name not in self._handlers.problems:
            return old, problem
        return new, ""


def _same_runtime(old: HandlerConfig, new: HandlerConfig) -> bool:
    """Whether two tables differ only in what noded itself decides, so that the open runtime fits both."""
    return (old.type, old.options) == (new.type, new.options)
