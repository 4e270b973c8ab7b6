"""Pod sandboxes: run, stop, remove, status, list, resize."""

from __future__ import annotations

import time

from noded.edge.cri import decode_linux, filters, verbose
from noded.edge.cri.core import Bridge, Containers, Sandboxes
from noded.edge.cri.decode_pod import pod_config
from noded.edge.cri.entries import Entries
from noded.edge.cri.fields import required
from noded.edge.cri.info import SERVICE
from noded.edge.cri.resolve import full_id
from noded.edge.cri.statuses import Statuses
from noded.edge.deadline import Deadline
from noded.edge.method import Method, unary
from noded.edge.verbatim import verbatim
from noded.model.views import SandboxView
from noded.proto.runtime import v1
from noded.wire.messages import encode
from noded.wire.protobuf import number, record


class SandboxService:
    """Translates sandbox RPCs; `entries` is shared with the streamed lists, `statuses` with events."""

    def __init__(
        self,
        sandboxes: Sandboxes,
        containers: Containers,
        bridge: Bridge,
        entries: Entries[SandboxView],
        statuses: Statuses,
    ) -> None:
        self._sandboxes = sandboxes
        self._containers = containers
        self._statuses = statuses
        self._bridge = bridge
        self._entries = entries

    def methods(self) -> list[Method]:
        return [
            unary(SERVICE, "RunPodSandbox", v1.RunPodSandboxRequest, v1.RunPodSandboxResponse, self.run),
            unary(SERVICE, "StopPodSandbox", v1.StopPodSandboxRequest, v1.StopPodSandboxResponse, self.stop),
            unary(
                SERVICE,
                "RemovePodSandbox",
                v1.RemovePodSandboxRequest,
                v1.RemovePodSandboxResponse,
                self.remove,
            ),
            unary(
                SERVICE,
                "PodSandboxStatus",
                v1.PodSandboxStatusRequest,
                v1.PodSandboxStatusResponse,
                self.status,
            ),
            unary(SERVICE, "ListPodSandbox", v1.ListPodSandboxRequest, v1.ListPodSandboxResponse, self.list),
            unary(
                SERVICE,
                "UpdatePodSandboxResources",
                v1.UpdatePodSandboxResourcesRequest,
                v1.UpdatePodSandboxResourcesResponse,
                self.update_resources,
            ),
        ]

    async def run(self, request: v1.RunPodSandboxRequest, deadline: Deadline) -> v1.RunPodSandboxResponse:
        id_ = await self._bridge.call(
            self._sandboxes.run,
            pod_config(request.config),
            request.runtime_handler,
            verbatim(request),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.RunPodSandboxResponse(pod_sandbox_id=id_)

    async def stop(self, request: v1.StopPodSandboxRequest, deadline: Deadline) -> v1.StopPodSandboxResponse:
        await self._bridge.call(
            self._sandboxes.stop,
            self._id(request.pod_sandbox_id),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.StopPodSandboxResponse()

    async def remove(
        self, request: v1.RemovePodSandboxRequest, deadline: Deadline
    ) -> v1.RemovePodSandboxResponse:
        await self._bridge.call(
            self._sandboxes.remove,
            self._id(request.pod_sandbox_id),
            deadline_seconds=deadline.budget_seconds(),
            detach=True,
        )
        return v1.RemovePodSandboxResponse()

    async def status(self, request: v1.PodSandboxStatusRequest, deadline: Deadline) -> bytes:
        view = self._sandboxes.view(required(request.pod_sandbox_id, "pod_sandbox_id"))
        details = verbose.info({"pid": view.pid, **dict(view.info)}) if request.verbose else {}
        inside = (one for one in self._containers.views() if one.sandbox_id == view.id)
        return b"".join(
            (
                record(1, self._statuses.sandbox(view)),
                encode(v1.PodSandboxStatusResponse(info=details)),
                self._statuses.records(3, inside),
                number(4, time.time_ns()),
            )
        )

    async def list(self, request: v1.ListPodSandboxRequest, deadline: Deadline) -> bytes:
        views = self._sandboxes.views()
        self._entries.keep(views)
        return self._entries.message(filters.sandboxes(views, request.filter))

    async def update_resources(
        self, request: v1.UpdatePodSandboxResourcesRequest, deadline: Deadline
    ) -> v1.UpdatePodSandboxResourcesResponse:
        await self._bridge.call(
            self._sandboxes.update_resources,
            self._id(request.pod_sandbox_id),
            decode_linux.resources(request.overhead),
            decode_linux.resources(request.resources),
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.UpdatePodSandboxResourcesResponse()

    def _id(self, given: str) -> str:
        return full_id(self._sandboxes.view, given, "pod_sandbox_id")
