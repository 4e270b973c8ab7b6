"""ExecSync, and the interactive streams."""

from __future__ import annotations

from typing import Protocol

from noded.edge.cri.core import Bridge, Containers, RunningContainers, Sandboxes
from noded.edge.cri.fields import non_negative, required
from noded.edge.cri.info import SERVICE
from noded.edge.cri.resolve import full_id
from noded.edge.cri.unimplemented import refuse
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.states import ContainerState, SandboxState
from noded.proto.runtime import v1
from noded.streams.requests import CommandRequest, ForwardRequest

_NO_STREAMING = "this server has no streams: use ExecSync"
_PORTS = range(1, 65536)


class StreamUrls(Protocol):
    """Where clients find the streams that they asked for. All raise ResourceExhausted."""

    def exec_url(self, request: CommandRequest) -> str: ...

    def attach_url(self, request: CommandRequest) -> str: ...

    def port_forward_url(self, request: ForwardRequest) -> str: ...


class ExecService:
    """Commands in containers. Without `urls` only those that need no stream."""

    def __init__(
        self,
        containers: Containers,
        running: RunningContainers,
        bridge: Bridge,
        sandboxes: Sandboxes,
        urls: StreamUrls | None = None,
    ) -> None:
        self._containers = containers
        self._running = running
        self._bridge = bridge
        self._streams = None if urls is None else StreamCalls(containers, sandboxes, urls)

    def methods(self) -> list[Method]:
        refused, streams = refuse(_NO_STREAMING), self._streams
        return [
            unary(SERVICE, "ExecSync", v1.ExecSyncRequest, v1.ExecSyncResponse, self.exec_sync),
            unary(SERVICE, "Exec", v1.ExecRequest, v1.ExecResponse, streams.exec if streams else refused),
            unary(
                SERVICE,
                "Attach",
                v1.AttachRequest,
                v1.AttachResponse,
                streams.attach if streams else refused,
            ),
            unary(
                SERVICE,
                "PortForward",
                v1.PortForwardRequest,
                v1.PortForwardResponse,
                streams.port_forward if streams else refused,
            ),
        ]

    async def exec_sync(self, request: v1.ExecSyncRequest, deadline: Deadline) -> v1.ExecSyncResponse:
        if not request.cmd:
            raise InvalidArgument("cmd: must not be empty")
        timeout = non_negative(request.timeout, "timeout")
        result = await self._bridge.call(
            self._running.exec_sync,
            full_id(self._containers.view, request.container_id, "container_id"),
            tuple(request.cmd),
            float(timeout) if timeout else None,
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)


class StreamCalls:
    """Exec, Attach and PortForward: checks now, work when the client opens the URL."""

    def __init__(self, containers: Containers, sandboxes: Sandboxes, urls: StreamUrls) -> None:
        self._containers = containers
        self._sandboxes = sandboxes
        self._urls = urls

    async def exec(self, request: v1.ExecRequest, deadline: Deadline) -> v1.ExecResponse:
        if not request.cmd or not request.cmd[0]:
            raise InvalidArgument("cmd: must not be empty")
        wanted = self._command(request, tuple(request.cmd))
        return v1.ExecResponse(url=self._urls.exec_url(wanted))

    async def attach(self, request: v1.AttachRequest, deadline: Deadline) -> v1.AttachResponse:
        return v1.AttachResponse(url=self._urls.attach_url(self._command(request, ())))

    async def port_forward(
        self, request: v1.PortForwardRequest, deadline: Deadline
    ) -> v1.PortForwardResponse:
        view = self._sandboxes.view(required(request.pod_sandbox_id, "pod_sandbox_id"))
        if view.state is not SandboxState.READY:
            raise FailedPrecondition(f"pod sandbox {view.id[:12]} is {view.state.name}, not READY")
        for index, port in enumerate(request.port):
            if port not in _PORTS:
                raise InvalidArgument(f"port[{index}]: {port} is not a port")
        wanted = ForwardRequest(view.id, tuple(request.port))
        return v1.PortForwardResponse(url=self._urls.port_forward_url(wanted))

    def _command(
        self, request: v1.ExecRequest | v1.AttachRequest, command: tuple[str, ...]
    ) -> CommandRequest:
        if not (request.stdin or request.stdout or request.stderr):
            raise InvalidArgument("stdin, stdout, stderr: ask for one at least")
        if request.tty and request.stderr:
            raise InvalidArgument("stderr: must not be set with tty, a terminal has one output")
        view = self._containers.view(required(request.container_id, "container_id"))
        if view.state is not ContainerState.RUNNING:
            raise FailedPrecondition(f"container {view.id[:12]} is {view.state.name}, not RUNNING")
        return CommandRequest(
            container_id=view.id,
            command=command,
            tty=request.tty,
            stdin=request.stdin,
            stdout=request.stdout,
            stderr=request.stderr,
        )
