"""Calling the hooks of plugins while the daemon runs.

Each call runs in a worker thread under a deadline. A hook that raises or is late three times is
muted until the daemon restarts; its thread, if it never returns, is abandoned.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pluggy
import structlog
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition
from noded.model.container import ContainerConfig
from noded.model.extension import Edit, Event, Finding
from noded.model.pod import PodConfig
from noded.model.runtime import RuntimeHost
from noded.plugins.deadline import reason
from noded.plugins.discovery import PluginSet
from noded.plugins.edits import apply_edits

_log = structlog.get_logger(__name__)

_MUTED_AFTER = 3
_EDITS_SECONDS = 5.0
_OBSERVE_SECONDS = 1.0
_DIAGNOSE_SECONDS = 10.0


class Hooks:
    """The hooks of one set of plugins. Keeps count of failures, nothing else."""

    def __init__(self, plugins: PluginSet) -> None:
        self._plugins = plugins
        self._failures: dict[tuple[str, str], int] = {}
        # Abandoned calls keep their thread; they must not use up trio's default limiter.
        self._threads = trio.CapacityLimiter(16)

    @property
    def muted(self) -> tuple[tuple[str, str], ...]:
        """Pairs of (distribution, hook) that are no longer called."""
        return tuple(
            (self._plugins.of_name(name).distribution, hook)
            for (name, hook), count in self._failures.items()
            if count >= _MUTED_AFTER
        )

    def report(self) -> list[dict[str, Any]]:
        """Every installed plugin for people: what it is, why it is not in use, which hooks are muted."""
        muted = [key for key, count in self._failures.items() if count >= _MUTED_AFTER]
        return [
            {
                "name": plugin.name,
                "distribution": plugin.distribution,
                "version": plugin.version,
                "problem": plugin.problem,
                "muted": sorted(hook for name, hook in muted if name == plugin.name),
            }
            for plugin in self._plugins.plugins
        ]

    async def edit_spec(
        self, spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, image: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the spec with the edits of all plugins.

        Raises: as `wanted_edits`, and for two plugins that contradict each other.
        """
        edits = await self.wanted_edits(spec, pod, container, image)
        return apply_edits(spec, edits) if edits else dict(spec)

    async def wanted_edits(
        self, spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, image: Mapping[str, Any]
    ) -> list[tuple[str, Edit]]:
        """Return what all plugins want to change in a spec, as pairs of (distribution, edit).

        Raises: FailedPrecondition naming the distribution whose hook failed, was late or is muted.
        """
        edits: list[tuple[str, Edit]] = []
        for implementation in self._implementations("noded_spec_edits"):
            who = self._plugins.of_name(implementation.plugin_name).distribution
            arguments = {
                "spec": copy.deepcopy(dict(spec)),
                "pod": pod,
                "container": container,
                "image": image,
            }
            try:
                found = await self._call(
                    implementation, "noded_spec_edits", arguments, _EDITS_SECONDS, _edits
                )
            except _HookFailure as failure:
                raise FailedPrecondition(
                    f"plugin {who} failed in noded_spec_edits: {failure}; "
                    "repair it or add it to disabled_plugins"
                ) from failure
            edits += [(who, edit) for edit in found]
        return edits

    @property
    def edits_specs(self) -> bool:
        """Whether any plugin edits specs."""
        return bool(self._implementations("noded_spec_edits"))

    def observers(self) -> list[str]:
        """Names of the plugins that observe events."""
        return [each.plugin_name for each in self._implementations("noded_observe")]

    async def observe(self, event: Event, name: str = "") -> None:
        """Tell one plugin of an event, or all; failures are logged. Call from one task for each, in order."""
        for implementation in self._implementations("noded_observe"):
            if name and implementation.plugin_name != name:
                continue
            try:
                await self._call(
                    implementation, "noded_observe", {"event": event}, _OBSERVE_SECONDS, _nothing
                )
            except _HookFailure:
                continue

    async def diagnose(self, host: RuntimeHost) -> list[tuple[str, Finding]]:
        """Return pairs of (distribution, finding); a hook that fails is a finding itself."""
        findings: list[tuple[str, Finding]] = []
        for implementation in self._implementations("noded_diagnose"):
            who = self._plugins.of_name(implementation.plugin_name).distribution
            try:
                found = await self._call(
                    implementation, "noded_diagnose", {"host": host}, _DIAGNOSE_SECONDS, _findings
                )
            except _HookFailure as failure:
                found = [Finding("noded_diagnose", False, str(failure))]
            findings += [(who, finding) for finding in found]
        return findings

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller = getattr(self._plugins.manager.hook, hook)
        return list(caller.get_hookimpls())

    async def _call(
        self,
        implementation: pluggy.HookImpl,
        hook: str,
        arguments: Mapping[str, Any],
        seconds: float,
        checked: Callable[[Any], Any],
    ) -> Any:
        key = implementation.plugin_name, hook
        if self._failures.get(key, 0) >= _MUTED_AFTER:
            raise _HookFailure(f"muted after {_MUTED_AFTER} failures, see the log")
        values = [arguments[name] for name in implementation.argnames]
        try:
            with trio.move_on_after(seconds) as scope:
                # The result is made complete in the thread, too: it may be a generator.
                return await trio.to_thread.run_sync(
                    lambda: checked(implementation.function(*values)),
                    abandon_on_cancel=True,
                    limiter=self._threads,
                )
            assert scope.cancelled_caught
            problem = reason(DeadlineExceeded(f"it did not return within {seconds:g} s"))
        except Exception as error:
            problem = reason(error)
        self._failures[key] = count = self._failures.get(key, 0) + 1
        who = self._plugins.of_name(implementation.plugin_name).distribution
        _log.warning("plugin_hook_failed", distribution=who, hook=hook, reason=problem, failures=count)
        if count == _MUTED_AFTER:
            _log.error("plugin_hook_muted", distribution=who, hook=hook)
        raise _HookFailure(problem)


class _HookFailure(Exception):
    """A hook raised, was late, returned nonsense or is muted."""


def _edits(result: Any) -> list[Edit]:
    return _all_of(Edit, result)


def _findings(result: Any) -> list[Finding]:
    return _all_of(Finding, result)


def _all_of(kind: type[Any], result: Any) -> list[Any]:
    items = list(result or ())
    for item in items:
        if not isinstance(item, kind):
            raise TypeError(f"it returned {item!r}, not an iterable of {kind.__name__}")
    return items


def _nothing(result: Any) -> None:
    return None
