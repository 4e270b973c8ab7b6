"""noded's own service for its command line, on the same socket as CRI."""

from __future__ import annotations

import json
from functools import partial

from noded.edge.cri.core import Bridge, Explain, Images, Node, SeccompRecordings, Timelines
from noded.edge.cri.fields import required
from noded.edge.deadline import Deadline
from noded.edge.image_admin import ImageAdmin
from noded.edge.method import Method, unary
from noded.errors import InvalidArgument
from noded.model.timeline import as_json
from noded.proto.noded.admin import v1

SERVICE = "noded.admin.v1.Admin"

_FORMATS = {v1.ArchiveFormat.OCI: "oci", v1.ArchiveFormat.DOCKER: "docker", v1.ArchiveFormat.STORE: "store"}


class AdminService:
    """Translates the administration RPCs."""

    def __init__(
        self,
        images: Images,
        node: Node,
        recordings: SeccompRecordings,
        timelines: Timelines,
        explain: Explain,
        bridge: Bridge,
    ) -> None:
        self._explain = explain
        self._images = images
        self._recordings = recordings
        self._timelines = timelines
        self._image_admin = ImageAdmin(images, bridge)
        self._node = node
        self._bridge = bridge

    def methods(self) -> list[Method]:
        return [
            unary(SERVICE, "LoadImage", v1.LoadImageRequest, v1.LoadImageResponse, self.load),
            unary(SERVICE, "SaveImage", v1.SaveImageRequest, v1.SaveImageResponse, self.save),
            *self._image_admin.methods(),
            unary(SERVICE, "ListDebts", v1.ListDebtsRequest, v1.ListDebtsResponse, self.list_debts),
            unary(SERVICE, "ForgiveDebt", v1.ForgiveDebtRequest, v1.ForgiveDebtResponse, self.forgive),
            unary(
                SERVICE,
                "RecordSeccomp",
                v1.RecordSeccompRequest,
                v1.RecordSeccompResponse,
                self.record_seccomp,
            ),
            unary(SERVICE, "Timeline", v1.TimelineRequest, v1.TimelineResponse, self.timeline),
            unary(SERVICE, "Explain", v1.ExplainRequest, v1.ExplainResponse, self.explain),
            unary(SERVICE, "Info", v1.InfoRequest, v1.InfoResponse, self.info),
        ]

    async def load(self, request: v1.LoadImageRequest, deadline: Deadline) -> v1.LoadImageResponse:
        images = await self._bridge.call(
            self._images.load, _absolute(request.path, "path"), deadline_seconds=deadline.budget_seconds()
        )
        return v1.LoadImageResponse(
            images=[v1.LoadedImage(id=image.id, references=[*image.tags, *image.digests]) for image in images]
        )

    async def save(self, request: v1.SaveImageRequest, deadline: Deadline) -> v1.SaveImageResponse:
        if not request.references and request.format is not v1.ArchiveFormat.STORE:
            raise InvalidArgument("references: must not be empty")
        format_ = _FORMATS.get(request.format)
        if format_ is None:
            raise InvalidArgument(f"format: unknown value {int(request.format)}")
        await self._bridge.call(
            self._images.save,
            tuple(request.references),
            _absolute(request.path, "path"),
            format_,
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.SaveImageResponse()

    async def list_debts(self, request: v1.ListDebtsRequest, deadline: Deadline) -> v1.ListDebtsResponse:
        debts = sorted(self._node.debts(), key=lambda debt: debt.since_ns)
        return v1.ListDebtsResponse(
            debts=[
                v1.Debt(
                    id=debt.id,
                    kind=debt.kind,
                    subject=debt.subject,
                    since_ns=debt.since_ns,
                    tries=debt.tries,
                    last_error=debt.last_error,
                    next_try_ns=debt.next_try_ns,
                )
                for debt in debts
            ]
        )

    async def forgive(self, request: v1.ForgiveDebtRequest, deadline: Deadline) -> v1.ForgiveDebtResponse:
        forgiven = await self._bridge.call(
            self._node.forgive, required(request.id, "id"), deadline_seconds=deadline.budget_seconds()
        )
        return v1.ForgiveDebtResponse(id=forgiven)

    async def record_seccomp(
        self, request: v1.RecordSeccompRequest, deadline: Deadline
    ) -> v1.RecordSeccompResponse:
        recordings, waiting = await self._bridge.call(
            partial(self._recordings.of, wish=request.wish),
            required(request.pod, "pod"),
            request.container,
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.RecordSeccompResponse(
            recordings=[
                v1.SeccompRecording(
                    container_id=one.container_id,
                    container=one.name,
                    attempt=one.attempt,
                    calls=dict(one.calls),
                    profile=json.dumps(one.profile),
                )
                for one in recordings
            ],
            waiting=list(waiting),
        )

    async def timeline(self, request: v1.TimelineRequest, deadline: Deadline) -> v1.TimelineResponse:
        found = await self._bridge.call(
            self._timelines.find, request.pod, request.last or 1, deadline_seconds=deadline.budget_seconds()
        )
        return v1.TimelineResponse(
            pods=[
                v1.RecordedPod(calls=[json.dumps(as_json(call), separators=(",", ":")) for call in one.calls])
                for one in found
            ]
        )

    async def explain(self, request: v1.ExplainRequest, deadline: Deadline) -> v1.ExplainResponse:
        found = await self._bridge.call(
            self._explain.of,
            required(request.container_id, "container_id"),
            deadline_seconds=deadline.budget_seconds(),
        )
        return v1.ExplainResponse(json=json.dumps(found, ensure_ascii=False))

    async def info(self, request: v1.InfoRequest, deadline: Deadline) -> v1.InfoResponse:
        return v1.InfoResponse(json=json.dumps(self._node.info(), default=str))


def _absolute(path: str, field: str) -> str:
    if not required(path, field).startswith("/"):
        raise InvalidArgument(f"{field}: {path} is not absolute; the daemon has its own working directory")
    return path
