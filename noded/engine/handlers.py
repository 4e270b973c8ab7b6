"""Runtime handlers by the names that RuntimeClasses use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import structlog
import trio

from noded.config import HandlerConfig, WorkloadConfig
from noded.engine.spec_files import read_base_spec, read_handler_profile
from noded.errors import FailedPrecondition, InvalidArgument, NodedError
from noded.model.runtime import Runtime, RuntimeFeatures
from noded.plugins import Handler
from noded.spec.workloads import workload_of

log = structlog.get_logger(__name__)

_PROBE_SECONDS = 20.0  # a runtime that does not answer `features` in this time counts as unavailable


class Handlers:
    """The configured handlers and what they can do.

    Features are probed at start and again when a handler that was unavailable is asked for, so
    that installing the missing runtime needs no restart.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        default: str,
        workloads: Mapping[str, WorkloadConfig] = MappingProxyType({}),
    ) -> None:
        self._handlers = dict(handlers)
        self._workloads = workloads
        self._features: dict[str, RuntimeFeatures] = {}
        self._problems: dict[str, str] = {}
        self._retired: dict[str, Handler] = {}
        self._retired_features: dict[str, RuntimeFeatures] = {}
        self._waiting: list[Callable[[], None]] | None = []  # None = all were asked once
        self.default = default

    def when_probed(self, tell: Callable[[], None]) -> None:
        """Call `tell` once every handler has been asked for the first time, in place when that has been."""
        if self._waiting is None:
            tell()
        else:
            self._waiting.append(tell)

    async def probe(self) -> None:
        """Ask every handler for its features, all at once. Never raises for a broken handler."""
        async with trio.open_nursery() as nursery:
            for name in self._handlers:
                nursery.start_soon(self._probe, name)
        waiting, self._waiting = self._waiting or (), None
        for tell in waiting:
            tell()

    async def _probe(self, name: str) -> None:
        handler = self._handlers.get(name)
        if handler is None:
            return  # taken away before this task ran
        features, problem = await _ask(handler)
        if self._handlers.get(name) is not handler:
            return  # reloaded meanwhile
        if features is not None:
            self._features[name] = features
            self._problems.pop(name, None)
            return
        self._features.pop(name, None)
        if self._problems.get(name) != problem:
            log.warning("runtime handler unavailable", handler=name, reason=problem)
        self._problems[name] = problem

    async def problem_of(self, handler: Handler) -> str:
        """Why a handler, which need not be one of these, cannot be used; "" when it can."""
        return (await _ask(handler))[1]

    @property
    def opened(self) -> Mapping[str, Handler]:
        """All handlers, available or not."""
        return self._handlers

    def replace(self, handlers: Mapping[str, Handler], default: str) -> None:
        """Serve these from now on. Those that go still serve the pods that they started."""
        gone = {name: handler for name, handler in self._handlers.items() if name not in handlers}
        self._retired |= gone
        for name in handlers:
            self._retired.pop(name, None)
        for name in gone:
            if (features := self._features.pop(name, None)) is not None:
                self._retired_features[name] = features
            self._problems.pop(name, None)
        self._handlers = dict(handlers)
        self.default = default

    def resolve(self, name: str) -> str:
        """The handler name for what a request says; "" is the default one.

        Raises: InvalidArgument naming the known handlers.
        """
        chosen = name or self.default
        if chosen not in self._handlers:
            known = ", ".join(sorted(self._handlers)) or "none"
            raise InvalidArgument(
                f"runtime_handler {chosen!r} is not configured on this node: use one of {known}, "
                f"or add [runtimes.{chosen}] to the configuration"
            )
        return chosen

    async def open(self, name: str) -> tuple[Runtime, RuntimeFeatures]:
        """The runtime of a handler, for new work.

        Raises: InvalidArgument for an unknown handler, FailedPrecondition for an unavailable one.
        """
        while True:
            chosen = self.resolve(name)
            handler = self._handlers[chosen]
            await self._probe(chosen)  # cheap while the program is the same: the driver remembers it
            if self._handlers.get(chosen) is handler:
                break
            # Reloaded meanwhile: what was learnt is about the old one.
        if handler.runtime is None or chosen not in self._features:
            raise FailedPrecondition(f"runtime handler {chosen!r} is unavailable: {self._problems[chosen]}")
        return handler.runtime, self._features[chosen]

    async def features_of(self, name: str) -> RuntimeFeatures:
        """What a pod that there is can count on, also when its handler is no longer configured.

        Raises: as `open`.
        """
        if name in self._retired and name not in self._handlers and name in self._retired_features:
            return self._retired_features[name]
        return (await self.open(name))[1]

    def runtime(self, name: str) -> Runtime:
        """The runtime of a handler, for taking down what it once started, even if it is unhealthy."""
        handler = self._handlers.get(name) or self._retired.get(name)
        if handler is None or handler.runtime is None:
            reason = handler.unavailable if handler else "it is no longer configured"
            raise FailedPrecondition(
                f"runtime handler {name!r} is needed to take this pod down, but is unavailable: {reason}; "
                f"restore [runtimes.{name}] and its plugin"
            )
        return handler.runtime

    def settings(self, name: str) -> HandlerConfig:
        """The handler's configuration table."""
        return (self._handlers.get(name) or self._retired[name]).config

    def allowed_annotations(self, name: str, annotations: Mapping[str, str]) -> tuple[str, ...]:
        """Globs of the annotations that count for a pod: those of its handler, and of its workload."""
        workload = workload_of(self._workloads, annotations) if self._workloads else None
        more = workload.allowed_annotations if workload is not None else ()
        return (*self.settings(name).allowed_annotations, *more)

    def create_timeout_seconds(self, name: str) -> float:
        """Budget of one create through this handler."""
        return self.settings(name).create_timeout_seconds

    def features(self) -> list[tuple[str, RuntimeFeatures]]:
        """Every available handler with its features, the default first."""
        names = sorted(self._features, key=lambda name: (name != self.default, name))
        return [(name, self._features[name]) for name in names]

    def usage_in_cgroup(self, name: str) -> bool:
        """Whether the cgroups of its containers show what they use."""
        features = self._features.get(name) or self._retired_features.get(name)
        return features is None or features.usage_in_cgroup

    @property
    def problems(self) -> Mapping[str, str]:
        """Unavailable handlers and why."""
        return self._problems


async def _ask(handler: Handler) -> tuple[RuntimeFeatures | None, str]:
    """Its features, or None and why there are none."""
    if handler.runtime is None:
        return None, handler.unavailable or "its plugin did not load"
    try:
        config = handler.config
        if config.base_spec:
            await read_base_spec(config.name, config.base_spec)
        for key in ("seccomp_profile", "privileged_seccomp_profile"):
            await read_handler_profile(config.name, getattr(config, key), key)
        with trio.fail_after(_PROBE_SECONDS):
            return await handler.runtime.features(), ""
    except trio.TooSlowError:
        return None, f"it did not answer within {_PROBE_SECONDS:g} s"
    except NodedError as error:
        return None, str(error)
    except Exception as error:  # a plugin may raise anything, the daemon goes on
        return None, f"{type(error).__name__}: {error}"
