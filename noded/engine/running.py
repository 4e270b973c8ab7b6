"""ExecSync, UpdateContainerResources, ReopenContainerLog: what is done to a container that runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder
from noded.engine.handlers import Handlers
from noded.engine.nri import Nri
from noded.engine.registry import Registry
from noded.errors import FailedPrecondition, Unimplemented
from noded.host.cgroup_limits import save_limits
from noded.host.cgroups import Cgroups
from noded.model.host import HostFacts
from noded.model.pod import Resources
from noded.model.runtime import ExecResult, Sandbox
from noded.model.states import ContainerState
from noded.spec.process import exec_process
from noded.spec.resources import merge_resources, overlay, update_resources
from noded.spec.validate import check_resources

log = structlog.get_logger(__name__)

EXEC_LIMIT_BYTES = 16 * 1024 * 1024  # per stream, as both peers cut it
# Both streams together must fit into one message of 16 MiB, with room for the framing.
_ANSWER_BYTES = EXEC_LIMIT_BYTES - 64 * 1024


class RunningContainers:
    """Acts on containers without changing where they are in their life."""

    def __init__(
        self,
        *,
        facts: HostFacts,
        cgroups: Cgroups,
        registry: Registry,
        handlers: Handlers,
        ladder: ContainerLadder,
        nri: Nri,
    ) -> None:
        self._facts = facts
        self._cgroups = cgroups
        self._registry = registry
        self._handlers = handlers
        self._ladder = ladder
        self._nri = nri

    async def exec_sync(
        self, name: str, command: tuple[str, ...], timeout_seconds: float | None
    ) -> ExecResult:
        """Run a command in a running container and collect its output.

        Raises: DeadlineExceeded at `timeout_seconds` with the command killed, FailedPrecondition
            when the container does not run. Spec: CRI v1 ExecSync.
        """
        container = self._running(name)
        text = await trio.Path(container.ref.bundle / "config.json").read_bytes()
        process = exec_process(json.loads(text), command, terminal=False)
        runtime = await self._ladder.sandbox_runtime(container)
        result = await runtime.exec_sync(
            container.ref, process, timeout_seconds=timeout_seconds, limit_bytes=EXEC_LIMIT_BYTES
        )
        return fit_answer(result)

    async def update(self, name: str, resources: Resources, annotations: Mapping[str, str]) -> None:
        """Change the limits of a created or running container; all of them or none.

        Spec: CRI v1 UpdateContainerResources; fields left at zero stay as they are.
        """
        check_resources(resources, self._facts, "linux")
        container = await self._updatable(name)
        more: Mapping[str, Any] = {}
        if self._nri.active:  # without the lock: a plugin may update this container meanwhile
            changed = await self._nri.update(container, resources)
            if changed is not None:
                more, resources = changed
        async with container.lock:
            merged = merge_resources(container.record.resources, resources)
            runtime = await self._ladder.sandbox_runtime(container)
            changes = update_resources(resources, self._facts, current=container.record.resources)
            await self._apply(runtime, container, overlay(changes, more) if more else changes, merged)
        if self._nri.active:
            await self._nri.updated(container)

    async def apply_limits(self, name: str, changes: dict[str, Any], resources: Resources) -> None:
        """Change limits of a container as an NRI plugin wants; no plugin is asked about it.

        Args:
            changes: as the runtime takes them.
            resources: what the container's status says of them.

        Raises: as `update`.
        """
        container = await self._updatable(name)
        async with container.lock:
            runtime = await self._ladder.sandbox_runtime(container)
            merged = merge_resources(container.record.resources, resources)
            await self._apply(runtime, container, changes, merged)

    async def _apply(
        self, runtime: Sandbox, container: Container, changes: Mapping[str, Any], merged: Resources
    ) -> None:
        """Change limits and record them, both or neither: a runtime may fail, or be killed, half-way."""
        saved = await trio.to_thread.run_sync(
            save_limits, self._cgroups, container.record.cgroup, tuple(changes.get("unified", ()))
        )
        try:
            await runtime.update(container.ref, changes)
            await container.commit(resources=merged)
        except BaseException as error:
            with trio.CancelScope(shield=True):
                left = await trio.to_thread.run_sync(saved.restore)
            if left:
                error.add_note(f"limits that could not be put back: {', '.join(left)}")
                log.warning("limits are not as recorded", id=container.id, files=left)
            raise

    async def _updatable(self, name: str) -> Container:
        container = self._registry.container(name)
        if container.view.state not in (ContainerState.CREATED, ContainerState.RUNNING):
            raise FailedPrecondition(
                f"container {container.id[:12]} is {container.view.state.name}, nothing to update"
            )
        if container.record.restore and container.view.state is ContainerState.CREATED:
            raise FailedPrecondition(
                f"container {container.id[:12]} is restored when it starts: update it after that"
            )
        handler = container.sandbox.record.handler
        features = await self._handlers.features_of(handler)
        if not features.update:
            raise Unimplemented(
                f"runtime handler {handler!r} cannot change the resources of a live container"
            )
        return container

    async def reopen_log(self, name: str) -> None:
        """Make the log writer open its path anew after a rotation. Spec: CRI v1 ReopenContainerLog."""
        container = self._running(name)
        runtime = await self._ladder.sandbox_runtime(container)
        await runtime.reopen_log(container.ref)

    def _running(self, name: str) -> Container:
        container = self._registry.container(name)
        state = container.view.state
        if state is not ContainerState.RUNNING:
            raise FailedPrecondition(f"container {container.id[:12]} is {state.name}, not RUNNING")
        return container


def fit_answer(result: ExecResult) -> ExecResult:
    """Cut the streams to what one answer may carry; the shorter one is kept whole if it can be."""
    half = _ANSWER_BYTES // 2
    stderr = result.stderr[: max(half, _ANSWER_BYTES - len(result.stdout))]
    return replace(result, stdout=result.stdout[: _ANSWER_BYTES - len(stderr)], stderr=stderr)
