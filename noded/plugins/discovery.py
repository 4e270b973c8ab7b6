"""Which plugins are installed, and what each of them offers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
import structlog

from noded import hookspecs
from noded.model.runtime import RuntimeType
from noded.plugins.deadline import call_within, reason

_log = structlog.get_logger(__name__)

GROUP = "noded"
_IMPORT_SECONDS = 30.0
_TYPES_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry point. `problem` says why nothing of it is used, "" when it is in use."""

    name: str
    distribution: str
    version: str
    hooks: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PluginSet:
    """All installed plugins after discovery.

    Args:
        types: runtime types by name, each with its plugin.
        conflicts: names of types that several distributions offer, with a message naming them.
    """

    manager: pluggy.PluginManager
    plugins: tuple[Plugin, ...] = ()
    types: Mapping[str, tuple[RuntimeType, Plugin]] = field(default_factory=dict)
    conflicts: Mapping[str, str] = field(default_factory=dict)

    def of_name(self, name: str) -> Plugin:
        return next(plugin for plugin in self.plugins if plugin.name == name)

    def problem_of(self, name: str) -> str:
        """Why runtime types of a plugin are not in use although it is: others offer them, too."""
        types = self.of_name(name).types
        return "; ".join(message for type_, message in self.conflicts.items() if type_ in types)

    def why_missing(self, type_name: str) -> str:
        """Say why no handler can have this type."""
        if type_name in self.conflicts:
            return self.conflicts[type_name]
        known = ", ".join(sorted(self.types)) or "none"
        text = f"no plugin offers the runtime type {type_name!r}; known types: {known}"
        broken = [f"{each.distribution}: {each.problem}" for each in self.plugins if each.problem]
        return "; ".join([text, *broken])


def discover(
    disabled: Collection[str] = (), points: Iterable[EntryPoint] | None = None, order: Sequence[str] = ()
) -> PluginSet:
    """Import all plugins and ask them for their runtime types. Blocks.

    Args:
        disabled: names of plugins or distributions that are not even imported.
        points: entry points to use, None = those of the installed distributions.
        order: names of plugins or distributions that come first; the others follow by distribution.
    """
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    found: list[Plugin] = []
    offers: dict[str, list[tuple[RuntimeType, Plugin]]] = {}
    chosen = entry_points(group=GROUP) if points is None else points

    def place(point: EntryPoint) -> tuple[int, str, str]:
        distribution = _distribution(point)[0]
        ranks = [order.index(name) for name in (point.name, distribution) if name in order]
        return min(ranks, default=len(order)), distribution, point.name

    for point in sorted(chosen, key=place):
        plugin, types = _load(manager, point, disabled, {each.name: each for each in found})
        if plugin.problem:
            _log.warning(
                "plugin_unavailable",
                plugin=plugin.name,
                distribution=plugin.distribution,
                reason=plugin.problem,
            )
        found.append(plugin)
        for runtime_type in types:
            offers.setdefault(runtime_type.name, []).append((runtime_type, plugin))
    conflicts = {
        name: f"the runtime type {name!r} is offered by "
        + " and ".join(f"{plugin.distribution} (plugin {plugin.name})" for _, plugin in offered)
        + ": disable or uninstall all but one"
        for name, offered in offers.items()
        if len(offered) > 1
    }
    types_by_name = {name: offered[0] for name, offered in offers.items() if len(offered) == 1}
    return PluginSet(manager, tuple(found), types_by_name, conflicts)


def _load(
    manager: pluggy.PluginManager, point: EntryPoint, disabled: Collection[str], known: Mapping[str, Plugin]
) -> tuple[Plugin, list[RuntimeType]]:
    distribution, version = _distribution(point)

    def broken(problem: str) -> tuple[Plugin, list[RuntimeType]]:
        return Plugin(point.name, distribution, version, problem=problem), []

    if point.name in disabled or distribution in disabled:
        return broken("disabled by disabled_plugins in the configuration")
    if (other := known.get(point.name)) is not None:
        return broken(
            f"{other.distribution} has a plugin of the same name {point.name!r}: rename or disable one"
        )
    try:
        module = call_within(_IMPORT_SECONDS, point.load, f"importing {point.value}")
        hooks = _register(manager, module, point.name)
        types = call_within(
            _TYPES_SECONDS, lambda: _runtime_types(manager, point.name), "noded_runtime_types"
        )
    except BaseException as error:  # sys.exit() of a module, too; in this worker thread it ends nothing
        if manager.has_plugin(point.name):
            manager.unregister(name=point.name)
        return broken(reason(error))
    return Plugin(point.name, distribution, version, hooks, tuple(each.name for each in types)), types


def _register(manager: pluggy.PluginManager, module: Any, name: str) -> tuple[str, ...]:
    """Register and verify; a hook with an unknown name or argument is a plugin for another noded."""
    manager.register(module, name)
    manager.check_pending()
    callers = manager.get_hookcallers(module) or []
    for caller in callers:
        for implementation in caller.get_hookimpls():
            if implementation.plugin is module and (implementation.hookwrapper or implementation.wrapper):
                raise TypeError(f"{caller.name} is a hook wrapper; noded calls plain hooks only")
    return tuple(sorted(caller.name for caller in callers))


def _runtime_types(manager: pluggy.PluginManager, name: str) -> list[RuntimeType]:
    for implementation in manager.hook.noded_runtime_types.get_hookimpls():
        if implementation.plugin_name == name:
            return _checked(implementation.function())
    return []


def _checked(result: Any) -> list[RuntimeType]:
    types: list[RuntimeType] = []
    for each in result or ():
        if not isinstance(each, RuntimeType):
            raise TypeError(f"noded_runtime_types returned {each!r}, not a RuntimeType")
        types.append(each)
    return types


def _distribution(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "(unknown distribution)", ""
    return point.dist.name, point.dist.version
