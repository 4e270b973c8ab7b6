"""CheckpointContainer."""

from __future__ import annotations

from noded.edge.cri.core import Bridge, Checkpoints, Containers
from noded.edge.cri.fields import non_negative, required
from noded.edge.cri.info import SERVICE
from noded.edge.cri.resolve import full_id
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.proto.runtime import v1


class CheckpointService:
    """Translates the RPC that saves a container."""

    def __init__(self, containers: Containers, checkpoints: Checkpoints, bridge: Bridge) -> None:
        self._containers = containers
        self._checkpoints = checkpoints
        self._bridge = bridge

    def methods(self) -> list[Method]:
        return [
            unary(
                SERVICE,
                "CheckpointContainer",
                v1.CheckpointContainerRequest,
                v1.CheckpointContainerResponse,
                self.checkpoint,
            )
        ]

    async def checkpoint(
        self, request: v1.CheckpointContainerRequest, deadline: Deadline
    ) -> v1.CheckpointContainerResponse:
        # Not detached: an archive that nobody is told of would be an unknown copy of the memory.
        await self._bridge.call(
            self._checkpoints.checkpoint,
            full_id(self._containers.view, request.container_id, "container_id"),
            required(request.location, "location"),
            float(non_negative(request.timeout, "timeout")),
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.CheckpointContainerResponse()
