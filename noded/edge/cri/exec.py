"""ExecSync, and the interactive streams."""

from __future__ import annotations

from noded.edge.cri.core import Bridge, Containers
from noded.edge.cri.fields import non_negative
from noded.edge.cri.info import SERVICE
from noded.edge.cri.resolve import full_id
from noded.edge.cri.unimplemented import refuse
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.errors import InvalidArgument
from noded.proto.runtime import v1

_NO_STREAMING = "streaming is not implemented in this version of noded: use ExecSync"


class ExecService:
    """Commands in containers."""

    def __init__(self, containers: Containers, bridge: Bridge) -> None:
        self._containers = containers
        self._bridge = bridge

    def methods(self) -> list[Method]:
        refused = refuse(_NO_STREAMING)
        return [
            unary(SERVICE, "ExecSync", v1.ExecSyncRequest, v1.ExecSyncResponse, self.exec_sync),
            unary(SERVICE, "Exec", v1.ExecRequest, v1.ExecResponse, refused),
            unary(SERVICE, "Attach", v1.AttachRequest, v1.AttachResponse, refused),
            unary(SERVICE, "PortForward", v1.PortForwardRequest, v1.PortForwardResponse, refused),
        ]

    async def exec_sync(self, request: v1.ExecSyncRequest, deadline: Deadline) -> v1.ExecSyncResponse:
        if not request.cmd:
            raise InvalidArgument("cmd: must not be empty")
        timeout = non_negative(request.timeout, "timeout")
        result = await self._bridge.call(
            self._containers.exec_sync,
            full_id(self._containers.view, request.container_id, "container_id"),
            tuple(request.cmd),
            float(timeout) if timeout else None,
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.ExecSyncResponse(stdout=result.stdout, stderr=result.stderr, exit_code=result.exit_code)
