"""Messages of a shim's task service: containerd.task.v2.Task and v3, which differ in name only. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Final

from noded.wire.ttrpc_protobuf import (
    Message,
    boolean,
    integer,
    message,
    messages,
    octets,
    string,
    string_map,
    strings,
)

SERVICES: Final = {2: "containerd.task.v2.Task", 3: "containerd.task.v3.Task"}

PROCESS_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/Process"  # a JSON body
RESOURCES_URL: Final = "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources"  # a JSON body

_NS_PER_SECOND: Final = 1_000_000_000


class ProcessStatus(IntEnum):
    """containerd.v1.types.Status."""

    UNKNOWN = 0
    CREATED = 1
    RUNNING = 2
    STOPPED = 3
    PAUSED = 4
    PAUSING = 5


@dataclass(frozen=True, slots=True)
class Empty(Message):
    """No fields."""

    NAME: ClassVar[str] = "google.protobuf.Empty"


@dataclass(frozen=True, slots=True)
class Any(Message):
    """A message of another type; `type_url` ends with its name."""

    NAME: ClassVar[str] = "google.protobuf.Any"
    type_url: str = string(1)
    value: bytes = octets(2)


@dataclass(frozen=True, slots=True)
class Timestamp(Message):
    """A point in time since the epoch."""

    NAME: ClassVar[str] = "google.protobuf.Timestamp"
    seconds: int = integer(1, "int64")
    nanos: int = integer(2, "int32")

    @property
    def ns(self) -> int:
        return self.seconds * _NS_PER_SECOND + self.nanos


@dataclass(frozen=True, slots=True)
class Mount(Message):
    NAME: ClassVar[str] = "containerd.types.Mount"
    type: str = string(1)
    source: str = string(2)
    target: str = string(3)
    options: tuple[str, ...] = strings(4)


@dataclass(frozen=True, slots=True)
class CreateTaskRequest(Message):
    """`rootfs` empty: the root file system is in place already."""

    NAME: ClassVar[str] = "containerd.task.v2.CreateTaskRequest"
    id: str = string(1)
    bundle: str = string(2)
    rootfs: tuple[Mount, ...] = messages(3, Mount)
    terminal: bool = boolean(4)
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    checkpoint: str = string(8)
    parent_checkpoint: str = string(9)
    options: Any | None = message(10, Any)


@dataclass(frozen=True, slots=True)
class CreateTaskResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.CreateTaskResponse"
    pid: int = integer(1, "uint32")


@dataclass(frozen=True, slots=True)
class DeleteRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.DeleteRequest"
    id: str = string(1)
    exec_id: str = string(2)


@dataclass(frozen=True, slots=True)
class DeleteResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.DeleteResponse"
    pid: int = integer(1, "uint32")
    exit_status: int = integer(2, "uint32")
    exited_at: Timestamp | None = message(3, Timestamp)


@dataclass(frozen=True, slots=True)
class ExecProcessRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ExecProcessRequest"
    id: str = string(1)
    exec_id: str = string(2)
    terminal: bool = boolean(3)
    stdin: str = string(4)
    stdout: str = string(5)
    stderr: str = string(6)
    spec: Any | None = message(7, Any)


@dataclass(frozen=True, slots=True)
class ResizePtyRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ResizePtyRequest"
    id: str = string(1)
    exec_id: str = string(2)
    width: int = integer(3, "uint32")
    height: int = integer(4, "uint32")


@dataclass(frozen=True, slots=True)
class StateRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StateRequest"
    id: str = string(1)
    exec_id: str = string(2)


@dataclass(frozen=True, slots=True)
class StateResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StateResponse"
    id: str = string(1)
    bundle: str = string(2)
    pid: int = integer(3, "uint32")
    status: int = integer(4, "containerd.v1.types.Status")
    stdin: str = string(5)
    stdout: str = string(6)
    stderr: str = string(7)
    terminal: bool = boolean(8)
    exit_status: int = integer(9, "uint32")
    exited_at: Timestamp | None = message(10, Timestamp)
    exec_id: str = string(11)


@dataclass(frozen=True, slots=True)
class KillRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.KillRequest"
    id: str = string(1)
    exec_id: str = string(2)
    signal: int = integer(3, "uint32")
    all: bool = boolean(4)


@dataclass(frozen=True, slots=True)
class CloseIORequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.CloseIORequest"
    id: str = string(1)
    exec_id: str = string(2)
    stdin: bool = boolean(3)


@dataclass(frozen=True, slots=True)
class UpdateTaskRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.UpdateTaskRequest"
    id: str = string(1)
    resources: Any | None = message(2, Any)
    annotations: Mapping[str, str] = string_map(3)


@dataclass(frozen=True, slots=True)
class StartRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StartRequest"
    id: str = string(1)
    exec_id: str = string(2)


@dataclass(frozen=True, slots=True)
class StartResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StartResponse"
    pid: int = integer(1, "uint32")


@dataclass(frozen=True, slots=True)
class WaitRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.WaitRequest"
    id: str = string(1)
    exec_id: str = string(2)


@dataclass(frozen=True, slots=True)
class WaitResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.WaitResponse"
    exit_status: int = integer(1, "uint32")
    exited_at: Timestamp | None = message(2, Timestamp)


@dataclass(frozen=True, slots=True)
class StatsRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StatsRequest"
    id: str = string(1)


@dataclass(frozen=True, slots=True)
class StatsResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.StatsResponse"
    stats: Any | None = message(1, Any)


@dataclass(frozen=True, slots=True)
class ConnectRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ConnectRequest"
    id: str = string(1)


@dataclass(frozen=True, slots=True)
class ConnectResponse(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ConnectResponse"
    shim_pid: int = integer(1, "uint32")
    task_pid: int = integer(2, "uint32")
    version: str = string(3)


@dataclass(frozen=True, slots=True)
class ShutdownRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ShutdownRequest"
    id: str = string(1)
    now: bool = boolean(2)


@dataclass(frozen=True, slots=True)
class PauseRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.PauseRequest"
    id: str = string(1)


@dataclass(frozen=True, slots=True)
class ResumeRequest(Message):
    NAME: ClassVar[str] = "containerd.task.v2.ResumeRequest"
    id: str = string(1)


@dataclass(frozen=True, slots=True)
class RuncOptions(Message):
    """Options of containerd-shim-runc-v2. `binary_name` is the OCI runtime, `root` its state directory."""

    NAME: ClassVar[str] = "containerd.runc.v1.Options"
    no_pivot_root: bool = boolean(1)
    no_new_keyring: bool = boolean(2)
    shim_cgroup: str = string(3)
    io_uid: int = integer(4, "uint32")
    io_gid: int = integer(5, "uint32")
    binary_name: str = string(6)
    root: str = string(7)
    systemd_cgroup: bool = boolean(9)


@dataclass(frozen=True, slots=True)
class RuntimeOptions(Message):
    """Options of other shims: the path of a configuration file in the shim's own format."""

    NAME: ClassVar[str] = "runtimeoptions.v1.Options"
    type_url: str = string(1)
    config_path: str = string(2)
    config_body: bytes = octets(3)


def packed(of: Message) -> Any:
    """Return a message as Any under its plain name, as containerd's typeurl writes it."""
    return Any(of.NAME, of.encode())
