"""Container events and checkpoints: refused for now."""

from __future__ import annotations

from noded.edge.cri.info import SERVICE
from noded.edge.cri.unimplemented import refuse, refuse_stream
from noded.edge.method import Method, server_stream, unary
from noded.proto.runtime import v1


def methods() -> list[Method]:
    return [
        server_stream(
            SERVICE,
            "GetContainerEvents",
            v1.GetEventsRequest,
            v1.ContainerEventResponse,
            refuse_stream("container events are not implemented in this version of noded: list instead"),
        ),
        unary(
            SERVICE,
            "CheckpointContainer",
            v1.CheckpointContainerRequest,
            v1.CheckpointContainerResponse,
            refuse("checkpoints are not implemented in this version of noded"),
        ),
    ]
