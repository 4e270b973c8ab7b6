"""The plugins that are connected, and telling them of events.

One event at a time, plugins in the order of their indices: plugins rely on both. A plugin that
does not answer in time, or breaks the protocol, is closed and the event goes on without it; one that
answers with an error refuses the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
import trio

from noded.config import NriConfig
from noded.errors import FailedPrecondition
from noded.nri import events, launch
from noded.nri.connection import Lost, Refused
from noded.nri.events import Kind
from noded.nri.launch import Installed
from noded.nri.merge import Creation, Updates
from noded.nri.owners import Owners
from noded.nri.plugin import Plugin, Timeouts
from noded.nri.rules import check_rules
from noded.proto.nri.pkg.api import v1alpha1 as api
from noded.wire.messages import encode
from noded.wire.ttrpc import Code

log = structlog.get_logger(__name__)

Snapshot = tuple[list[api.PodSandbox], list[api.Container]]
# Of a call that has ended: plugin, method, result ("ok", "refused", "lost" or "cancelled"), seconds.
Observe = Callable[[str, str, str, float], None]


@dataclass(frozen=True, slots=True)
class Node:
    """What the service asks of the engine.

    Args:
        snapshot: what exists, and what was begun with an event that new plugins have missed.
        update: applies updates and evictions that the plugin of this label wants; returns those
            updates that failed.
    """

    snapshot: Callable[[], Awaitable[Snapshot]]
    update: Callable[
        [str, Sequence[api.ContainerUpdate], Sequence[api.ContainerEviction]],
        Awaitable[list[api.ContainerUpdate]],
    ]


class Service:
    """All plugins.

    Args:
        observe: told of each event that a plugin was told of.
    """

    def __init__(self, config: NriConfig, node: Node, observe: Observe) -> None:
        self._config = config
        self._observe = observe
        self._node = node
        self._timeouts = Timeouts(config.registration_timeout_seconds, config.request_timeout_seconds)
        self._turn = trio.Lock()
        self._joining = 0
        self._plugins: list[Plugin] = []

    @property
    def active(self) -> bool:
        """Whether anybody is to be told of events."""
        return bool(self._plugins or self._joining)

    def report(self) -> list[dict[str, Any]]:
        """The plugins for people, in the order in which they are called."""
        return [
            {
                "name": plugin.name,
                "index": plugin.index,
                "preinstalled": plugin.preinstalled,
                "failures": plugin.failures,
            }
            for plugin in self._plugins
        ]

    # connections

    async def serve_installed(self, installed: Installed, settled: Callable[[], None]) -> None:
        """Start an installed plugin and serve it until it ends.

        Args:
            settled: called once it takes part, or will not.
        """
        try:
            try:
                process, stream = await launch.start(installed)
            except OSError as error:
                log.error("NRI plugin not started", path=str(installed.path), error=error.strerror)
                return
            plugin = Plugin(
                stream,
                self._timeouts,
                self._unsolicited,
                index=installed.index,
                name=installed.name,
                config=installed.config,
            )
            plugin.pid = process.pid
            try:
                await self._serve(plugin, settled)
            finally:
                await launch.stop(process)
        finally:
            settled()

    async def serve(self, stream: trio.SocketStream, pid: int) -> None:
        """Serve a plugin that has connected until it ends. Never raises but Cancelled."""
        plugin = Plugin(stream, self._timeouts, self._unsolicited)
        plugin.pid = pid
        await self._serve(plugin, lambda: None)

    async def _serve(self, plugin: Plugin, settled: Callable[[], None]) -> None:
        why = ""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._join, plugin, settled)
                why = await plugin.connection.run()
                nursery.cancel_scope.cancel()
        finally:
            if plugin in self._plugins:
                self._plugins.remove(plugin)
        log.info("NRI plugin disconnected", plugin=plugin.label, pid=plugin.pid, reason=why)

    async def _join(self, plugin: Plugin, settled: Callable[[], None]) -> None:
        try:
            await plugin.register()
            self._joining += 1
            try:
                async with self._turn:
                    updates = await plugin.synchronize(*await self._node.snapshot())
                    self._plugins.append(plugin)
                    self._plugins.sort(key=lambda one: (one.index, one.name))
            finally:
                self._joining -= 1
            log.info("NRI plugin connected", plugin=plugin.label, pid=plugin.pid)
            for failed in await self._node.update(plugin.label, updates, ()):
                log.warning("an update of an NRI plugin failed", plugin=plugin.label, id=failed.container_id)
        except (Lost, Refused, ValueError) as error:
            log.error("NRI plugin not taken", plugin=plugin.label, pid=plugin.pid, error=str(error))
            await plugin.connection.finish(str(error))
        except Exception as error:  # a defect of noded: the plugin goes, the node works on
            log.exception("NRI plugin not taken", plugin=plugin.label, pid=plugin.pid)
            plugin.connection.close(str(error))
        finally:
            settled()

    async def _unsolicited(
        self, plugin: Plugin, request: api.UpdateContainersRequest
    ) -> api.UpdateContainersResponse:
        if plugin not in self._plugins:
            raise Refused(Code.FAILED_PRECONDITION, "updates are taken after Synchronize")
        failed = await self._node.update(plugin.label, request.update, request.evict)
        return api.UpdateContainersResponse(failed=failed)

    # events

    async def tell(
        self, kind: Kind, pod: api.PodSandbox, container: api.Container | None = None, **more: Any
    ) -> None:
        """Tell all that want it, up to the first that refuses. Raises: FailedPrecondition then."""
        request = (
            kind.request(pod=pod, **more) if container is None else kind.request(pod=pod, container=container)
        )
        async with self._turn:
            for plugin in self._subscribers(kind):
                await self._ask(plugin, kind, request)

    async def create(self, pod: api.PodSandbox, container: api.Container) -> Creation:
        """Ask all what they make of a new container.

        Raises: FailedPrecondition when one refuses, two contradict each other, or a validating plugin
            or the configuration forbids the result.
        """
        request = api.CreateContainerRequest(pod=pod, container=container)
        original = api.Container.parse(encode(container))
        creation = Creation(container)
        async with self._turn:
            asked = list(self._plugins)
            for plugin in self._subscribers(events.CREATE):
                reply = await self._ask(plugin, events.CREATE, request)
                if reply is not None:
                    creation.add(plugin.label, reply)
            check_rules(self._config, creation, {plugin.name for plugin in asked})
            await self._validate(pod, original, creation, asked)
        return creation

    async def _validate(
        self, pod: api.PodSandbox, original: api.Container, creation: Creation, asked: Sequence[Plugin]
    ) -> None:
        request = api.ValidateContainerAdjustmentRequest(
            pod=pod,
            container=original,
            adjust=creation.adjust,
            update=list(creation.updates.by_id.values()),
            owners=creation.owners.message(),
            plugins=[api.PluginInstance(name=one.name, index=one.index) for one in asked],
        )
        for plugin in self._subscribers(events.VALIDATE):
            reply = await self._ask(plugin, events.VALIDATE, request)
            if reply is None and plugin.connection.closed:
                raise FailedPrecondition(
                    f"NRI plugin {plugin.label} was lost while it validated the container: try again"
                )
            if reply is not None and reply.reject:
                raise FailedPrecondition(f"NRI plugin {plugin.label} rejects the container: {reply.reason}")

    async def update(
        self, pod: api.PodSandbox, container: api.Container, limits: api.LinuxResources
    ) -> Updates:
        """Ask all what they make of new limits of a container; `limits` is changed.

        Raises: FailedPrecondition when one refuses or two contradict each other.
        """
        request = api.UpdateContainerRequest(pod=pod, container=container, linux_resources=limits)
        return await self._updates(
            events.UPDATE, request, Updates(Owners(), requested=(container.id, limits))
        )

    async def stop(self, pod: api.PodSandbox, container: api.Container) -> Updates:
        """Tell all of a container's end; return what they want of others. Raises as `update`."""
        request = api.StopContainerRequest(pod=pod, container=container)
        return await self._updates(events.STOP, request, Updates(Owners()))

    async def _updates(self, kind: Kind, request: Any, updates: Updates) -> Updates:
        async with self._turn:
            for plugin in self._subscribers(kind):
                reply = await self._ask(plugin, kind, request)
                if reply is not None:
                    updates.add(plugin.label, reply.update)
                    updates.evictions += getattr(reply, "evict", [])
        return updates

    async def _ask(self, plugin: Plugin, kind: Kind, request: Any) -> Any:
        """As `Plugin.ask`, and note how it went."""
        began = trio.current_time()
        result = "cancelled"
        try:
            reply = await plugin.ask(kind, request)
            result = "lost" if plugin.connection.closed else "ok"
        except FailedPrecondition:
            result = "refused"
            raise
        finally:
            seconds = trio.current_time() - began
            self._observe(plugin.label, kind.method, result, seconds)
            if seconds > self._timeouts.request / 2:
                log.warning(
                    "NRI plugin is slow: the request and all other plugins wait for it",
                    plugin=plugin.label,
                    method=kind.method,
                    seconds=round(seconds, 3),
                    limit_seconds=self._timeouts.request,
                )
        return reply

    def _subscribers(self, kind: Kind) -> list[Plugin]:
        return [plugin for plugin in self._plugins if plugin.wants(kind)]
