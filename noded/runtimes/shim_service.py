"""A shim's task service as calls with deadlines, whose errors are noded's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any as Json
from typing import TypeVar

from noded.errors import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)
from noded.runtimes.failures import runtime_error
from noded.runtimes.ttrpc_client import Refused, TtrpcClient
from noded.wire import ttrpc_task as task
from noded.wire.ttrpc import Code
from noded.wire.ttrpc_metrics import TaskStats, parse_stats
from noded.wire.ttrpc_protobuf import Message

M = TypeVar("M", bound=Message)

CALL_SECONDS = 60.0
PROBE_SECONDS = 10.0  # for questions that a healthy shim answers at once

_CLASSES: Mapping[int, type[NodedError]] = {
    Code.INVALID_ARGUMENT: InvalidArgument,
    Code.DEADLINE_EXCEEDED: DeadlineExceeded,
    Code.NOT_FOUND: NotFound,
    Code.ALREADY_EXISTS: AlreadyExists,
    Code.PERMISSION_DENIED: PermissionDenied,
    Code.RESOURCE_EXHAUSTED: ResourceExhausted,
    Code.FAILED_PRECONDITION: FailedPrecondition,
    Code.ABORTED: Aborted,
    Code.UNIMPLEMENTED: Unimplemented,
    Code.UNAVAILABLE: Unavailable,
}


def error_of(action: str, refused: Refused) -> NodedError:
    """Return the error for a call that a shim refused; without a telling code its words decide."""
    kind = _CLASSES.get(refused.code)
    if kind is None:
        return runtime_error(action, refused.words.encode(), f"the shim answered code {refused.code}")
    return kind(f"{action}: {refused.words or 'the shim gave no reason'}")


@dataclass(frozen=True, slots=True)
class TaskService:
    """The tasks of one pod's shim. No state: every call makes its own connection.

    Each method raises the error class that the shim's status names, Unavailable (`ConnectionLost`)
    when the shim is not there, DeadlineExceeded when it does not answer.
    """

    client: TtrpcClient
    service: str

    async def _call(
        self,
        action: str,
        method: str,
        request: Message,
        reply: type[M],
        timeout_seconds: float | None,
    ) -> M:
        try:
            return await self.client.call(
                self.service, method, request, reply, timeout_seconds=timeout_seconds
            )
        except Refused as refused:
            raise error_of(f"could not {action}", refused) from None

    async def connect(self, task_id: str) -> task.ConnectResponse:
        return await self._call(
            "reach the shim", "Connect", task.ConnectRequest(task_id), task.ConnectResponse, PROBE_SECONDS
        )

    async def create(self, request: task.CreateTaskRequest, *, timeout_seconds: float) -> int:
        """Create a task; return the pid that the shim tells."""
        action = f"create container {request.id}"
        answer = await self._call(action, "Create", request, task.CreateTaskResponse, timeout_seconds)
        return answer.pid

    async def start(self, task_id: str, exec_id: str = "") -> int:
        action = f"run the command in container {task_id}" if exec_id else f"start container {task_id}"
        request = task.StartRequest(task_id, exec_id)
        return (await self._call(action, "Start", request, task.StartResponse, CALL_SECONDS)).pid

    async def exec(self, request: task.ExecProcessRequest) -> None:
        await self._call(
            f"add a command to container {request.id}", "Exec", request, task.Empty, CALL_SECONDS
        )

    async def state(self, task_id: str, exec_id: str = "") -> task.StateResponse:
        request = task.StateRequest(task_id, exec_id)
        action = f"tell the state of container {task_id}"
        return await self._call(action, "State", request, task.StateResponse, PROBE_SECONDS)

    async def wait(
        self, task_id: str, exec_id: str = "", *, timeout_seconds: float | None = None
    ) -> task.WaitResponse:
        """Return when the process has ended, at once if it has already."""
        request = task.WaitRequest(task_id, exec_id)
        return await self._call(
            f"wait for container {task_id}", "Wait", request, task.WaitResponse, timeout_seconds
        )

    async def kill(
        self,
        task_id: str,
        signal: int,
        *,
        exec_id: str = "",
        everything: bool = False,
    ) -> None:
        """Signal a process. Raises NotFound when it has ended."""
        request = task.KillRequest(task_id, exec_id, signal, everything)
        await self._call(f"signal container {task_id}", "Kill", request, task.Empty, PROBE_SECONDS)

    async def delete(self, task_id: str, exec_id: str = "", *, timeout_seconds: float) -> None:
        request = task.DeleteRequest(task_id, exec_id)
        await self._call(
            f"delete container {task_id}", "Delete", request, task.DeleteResponse, timeout_seconds
        )

    async def resize(self, task_id: str, width: int, height: int, *, exec_id: str = "") -> None:
        request = task.ResizePtyRequest(task_id, exec_id, width, height)
        await self._call(
            f"resize the terminal of container {task_id}", "ResizePty", request, task.Empty, PROBE_SECONDS
        )

    async def close_stdin(self, task_id: str, exec_id: str = "") -> None:
        request = task.CloseIORequest(task_id, exec_id, stdin=True)
        await self._call(
            f"close standard input of container {task_id}", "CloseIO", request, task.Empty, PROBE_SECONDS
        )

    async def update(self, task_id: str, resources: Mapping[str, Json]) -> None:
        """Apply an OCI `linux.resources` object."""
        packed = task.Any(task.RESOURCES_URL, json.dumps(resources).encode())
        request = task.UpdateTaskRequest(task_id, packed)
        await self._call(f"update container {task_id}", "Update", request, task.Empty, CALL_SECONDS)

    async def pause(self, task_id: str) -> None:
        await self._call(
            f"pause container {task_id}", "Pause", task.PauseRequest(task_id), task.Empty, CALL_SECONDS
        )

    async def resume(self, task_id: str) -> None:
        await self._call(
            f"resume container {task_id}", "Resume", task.ResumeRequest(task_id), task.Empty, CALL_SECONDS
        )

    async def stats(self, task_id: str) -> TaskStats:
        """Raises also Unavailable when the statistics are of an unknown kind."""
        request = task.StatsRequest(task_id)
        action = f"read statistics of container {task_id}"
        answer = await self._call(action, "Stats", request, task.StatsResponse, PROBE_SECONDS)
        try:
            return parse_stats(answer.stats or task.Any())
        except ValueError as error:
            raise Unavailable(f"could not {action}: {error}") from None

    async def shutdown(self, sandbox_id: str, *, timeout_seconds: float) -> None:
        """Ask the shim to end. It may do so before it answers: that is a lost connection."""
        request = task.ShutdownRequest(sandbox_id, now=True)
        await self._call("end the shim", "Shutdown", request, task.Empty, timeout_seconds)
