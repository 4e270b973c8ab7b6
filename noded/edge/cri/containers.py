"""Containers: create, start, stop, remove, status, list, update, log rotation."""

from __future__ import annotations

from noded.edge.cri import decode_linux, filters, verbose
from noded.edge.cri.core import Bridge, Containers, RunningContainers, Sandboxes
from noded.edge.cri.decode_container import container_config
from noded.edge.cri.entries import Entries
from noded.edge.cri.fields import non_negative, required
from noded.edge.cri.info import SERVICE
from noded.edge.cri.resolve import full_id
from noded.edge.cri.statuses import Statuses
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.edge.verbatim import verbatim
from noded.model.pod import Resources
from noded.model.views import ContainerView
from noded.proto.runtime import v1
from noded.wire.messages import encode
from noded.wire.protobuf import record


class ContainerService:
    """Translates container RPCs; `entries` is shared with the streamed lists, `statuses` with events."""

    def __init__(
        self,
        containers: Containers,
        running: RunningContainers,
        sandboxes: Sandboxes,
        bridge: Bridge,
        entries: Entries[ContainerView],
        statuses: Statuses,
    ) -> None:
        self._containers = containers
        self._running = running
        self._sandboxes = sandboxes
        self._statuses = statuses
        self._bridge = bridge
        self._entries = entries

    def methods(self) -> list[Method]:
        return [
            unary(
                SERVICE, "CreateContainer", v1.CreateContainerRequest, v1.CreateContainerResponse, self.create
            ),
            unary(SERVICE, "StartContainer", v1.StartContainerRequest, v1.StartContainerResponse, self.start),
            unary(SERVICE, "StopContainer", v1.StopContainerRequest, v1.StopContainerResponse, self.stop),
            unary(
                SERVICE, "RemoveContainer", v1.RemoveContainerRequest, v1.RemoveContainerResponse, self.remove
            ),
            unary(
                SERVICE, "ContainerStatus", v1.ContainerStatusRequest, v1.ContainerStatusResponse, self.status
            ),
            unary(SERVICE, "ListContainers", v1.ListContainersRequest, v1.ListContainersResponse, self.list),
            unary(
                SERVICE,
                "UpdateContainerResources",
                v1.UpdateContainerResourcesRequest,
                v1.UpdateContainerResourcesResponse,
                self.update,
            ),
            unary(
                SERVICE,
                "ReopenContainerLog",
                v1.ReopenContainerLogRequest,
                v1.ReopenContainerLogResponse,
                self.reopen_log,
            ),
        ]

    async def create(
        self, request: v1.CreateContainerRequest, deadline: Deadline
    ) -> v1.CreateContainerResponse:
        id_ = await self._bridge.call(
            self._containers.create,
            full_id(self._sandboxes.view, request.pod_sandbox_id, "pod_sandbox_id"),
            container_config(request.config),
            verbatim(request),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.CreateContainerResponse(container_id=id_)

    async def start(self, request: v1.StartContainerRequest, deadline: Deadline) -> v1.StartContainerResponse:
        await self._bridge.call(
            self._containers.start,
            self._id(request.container_id),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.StartContainerResponse()

    async def stop(self, request: v1.StopContainerRequest, deadline: Deadline) -> v1.StopContainerResponse:
        await self._bridge.call(
            self._containers.stop,
            self._id(request.container_id),
            float(non_negative(request.timeout, "timeout")),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.StopContainerResponse()

    async def remove(
        self, request: v1.RemoveContainerRequest, deadline: Deadline
    ) -> v1.RemoveContainerResponse:
        await self._bridge.call(
            self._containers.remove,
            self._id(request.container_id),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.RemoveContainerResponse()

    async def status(self, request: v1.ContainerStatusRequest, deadline: Deadline) -> bytes:
        view = self._containers.view(required(request.container_id, "container_id"))
        details = (
            verbose.info({"pid": view.pid, "sandboxID": view.sandbox_id, **dict(view.info)})
            if request.verbose
            else {}
        )
        return record(1, self._statuses.container(view)) + encode(v1.ContainerStatusResponse(info=details))

    async def list(self, request: v1.ListContainersRequest, deadline: Deadline) -> bytes:
        views = self._containers.views()
        self._entries.keep(views)
        return self._entries.message(filters.containers(views, request.filter))

    async def update(
        self, request: v1.UpdateContainerResourcesRequest, deadline: Deadline
    ) -> v1.UpdateContainerResourcesResponse:
        await self._bridge.call(
            self._running.update,
            self._id(request.container_id),
            decode_linux.resources(request.linux) or Resources(),
            dict(request.annotations),
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.UpdateContainerResourcesResponse()

    async def reopen_log(
        self, request: v1.ReopenContainerLogRequest, deadline: Deadline
    ) -> v1.ReopenContainerLogResponse:
        await self._bridge.call(
            self._running.reopen_log,
            self._id(request.container_id),
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.ReopenContainerLogResponse()

    def _id(self, given: str) -> str:
        return full_id(self._containers.view, given, "container_id")
