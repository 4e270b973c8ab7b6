"""The contract between the engine and a runtime: values and the protocols that drivers implement.

A *runtime type* (`runc`, `runsc`, `kata`...) comes from a plugin; a *handler* is a configured
instance of a type under the name that a RuntimeClass uses. `Runtime` is an open handler. It keeps
no state that a daemon restart would lose: everything derives from a reference and its bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from noded.model.host import HostFacts
from noded.model.paths import Layout
from noded.model.pod import PodConfig


@dataclass(frozen=True, slots=True)
class RuntimeFeatures:
    """What a handler can do; unsupported requests are refused before anything is created."""

    version: str = ""
    recursive_read_only_mounts: bool = False
    user_namespaces: bool = False
    idmap_mounts: bool = False
    update: bool = True
    exec: bool = True
    checkpoint: bool = False
    needs_infra: bool = False  # wants a sandbox container even when no namespace needs one
    highest_oci_version: str = "1.0.2"
    seccomp_notify: bool = False  # hands the descriptor of a filter to `linux.seccomp.listenerPath`
    sockets_in_netns: bool = True  # False: a network stack of its own, which owns the pod's address
    waiting_reads: bool = True  # False: read(2) of a connection fails when no data has come yet
    forwards: bool = False  # `Sandbox.forward_open` reaches the loopback of a stack of its own
    virtual_machine: bool = False  # containers run in one of the pod's own
    unknown_capabilities: tuple[str, ...] = ()  # CAP_ names that it refuses to be asked for
    usage_in_cgroup: bool = True  # False: a task's processes are not in its cgroup; `Sandbox.usage` tells


class TaskState(StrEnum):
    """What a runtime says of a task; MISSING when it knows none."""

    MISSING = "missing"
    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Names one task (a container's processes in the runtime). Derivable from the record alone."""

    id: str
    sandbox_id: str
    bundle: Path
    cgroup: str  # the OCI cgroupsPath


@dataclass(frozen=True, slots=True)
class TaskCreate:
    """All that a driver needs to create a task. `bundle/config.json` is already written.

    Args:
        log_path: absolute path of the CRI log file, "" for none.
        monitor_cgroup: absolute cgroup path for the monitor process, "" = leave where it is.
        deadline_seconds: budget for the creation.
        restore_from: directory with the images of a checkpoint; the task is made from them and runs
            at once, `start` is not for it. Only where the feature `checkpoint` is there.
    """

    ref: TaskRef
    log_path: str = ""
    terminal: bool = False
    stdin: bool = False
    stdin_once: bool = False
    monitor_cgroup: str = ""
    oom_score_adj: int | None = None
    deadline_seconds: float = 240.0
    environment: Mapping[str, str] = field(default_factory=dict)
    restore_from: Path | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a task ended. `code` is 128+signal for a killed process, 255 when nobody knows."""

    code: int
    finished_at_ns: int
    oom_killed: bool = False
    message: str = ""
    reason: str = ""  # what clients are told instead of Completed or Error


@dataclass(frozen=True, slots=True)
class TaskUsage:
    """What a task uses, in its runtime's words; None = it does not say.

    Args:
        cpu_ns: CPU time since the task began.
        working_set_bytes: memory that cannot easily be freed.
    """

    cpu_ns: int | None = None
    memory_bytes: int | None = None
    working_set_bytes: int | None = None
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class ExecResult:
    """`exit_code` of the command; streams are cut at the caller's limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class ExecStream(Protocol):
    """A command that runs in a task, with our ends of its streams.

    Descriptors are non-blocking, -1 where there is none. They belong to this object; whoever polls
    them must stop before it calls `close_stdin` or `close`.
    """

    @property
    def terminal(self) -> int:
        """The master of the command's terminal, for both directions; then there is no other."""

    @property
    def stdin(self) -> int:
        """Write end of the command's input."""

    @property
    def stdout(self) -> int:
        """Read end of its output."""

    @property
    def stderr(self) -> int:
        """Read end of its error output."""

    def close_stdin(self) -> None:
        """The command's input ends. Idempotent."""

    def close(self) -> None:
        """Close all descriptors: a terminal is hung up, pipes end. Idempotent; does not wait."""

    async def resize(self, width: int, height: int) -> None:
        """Set the size of the terminal, in character cells."""

    async def wait(self) -> int:
        """The exit code, 128+signal for a killed command; also after `close`, and more than once.

        Somebody must wait to the end, for the command may be the daemon's child.
        """


@dataclass(frozen=True, slots=True)
class SandboxRef:
    """Names one sandbox to a driver. Derivable from the record alone."""

    id: str
    config: PodConfig
    bundle: Path  # where an infra task's bundle lives, if the sandbox needs one
    cgroup: str


@dataclass(frozen=True, slots=True)
class SandboxStart:
    """`infra_spec` is the OCI spec of the pod's init task, None when no task is needed."""

    ref: SandboxRef
    infra_spec: Mapping[str, Any] | None
    monitor_cgroup: str = ""
    deadline_seconds: float = 240.0


class Sandbox(Protocol):
    """An open sandbox of one handler. Every coroutine may be cancelled unless it says otherwise."""

    async def infra_pid(self) -> int | None:
        """Pid of the live init task whose PID namespace the pod shares, None without one."""

    async def create(self, task: TaskCreate) -> int:
        """Create the task, not yet running; return the pid of its init process.

        Raises: FailedPrecondition, Unavailable, DeadlineExceeded with the runtime's own words.
        A failure may leave pieces: `delete` removes them.
        """

    async def start(self, ref: TaskRef) -> None:
        """Run the created task's process."""

    async def kill(self, ref: TaskRef, signal: int, *, everything: bool = False) -> None:
        """Signal the init process, or all processes of the task. A task already gone is success."""

    async def state(self, ref: TaskRef) -> TaskState:
        """Ask the runtime."""

    async def wait(self, ref: TaskRef) -> Exit:
        """Return when the task has exited, at once if it already has. Cancellation: safe, no effect.

        Returns also when the monitor died without a record (code 255 with a message).
        """

    async def delete(self, ref: TaskRef) -> None:
        """Remove every trace of the task: processes, monitor, cgroup, sockets.

        Idempotent, and right when `create` never ran or half ran. Kills what is alive.
        """

    async def exec_sync(
        self,
        ref: TaskRef,
        process: Mapping[str, Any],
        *,
        timeout_seconds: float | None,
        limit_bytes: int,
    ) -> ExecResult:
        """Run an OCI process object in the task and collect its output.

        Raises: DeadlineExceeded at `timeout_seconds`, with every process of the exec killed.
        """

    async def exec_open(
        self, ref: TaskRef, process: Mapping[str, Any], *, terminal: bool, stdin: bool
    ) -> ExecStream:
        """Start an OCI process object in the task, with streams.

        Args:
            terminal: give it a terminal instead of pipes.
            stdin: whether it has input; without, its input is /dev/null. A terminal always has.

        Raises: FailedPrecondition and others with the runtime's own words.
        Cancellation: none; a start that has begun is finished.
        """

    async def attach_open(self, ref: TaskRef) -> int:
        """Connect to the streams of the task's own process; return a descriptor, the caller's.

        It is a SOCK_SEQPACKET socket. A packet from it is a byte, 2 for output or 3 for error
        output, and data; what is sent to it, up to 32 KiB in a packet, is input. Shutting down the
        sending side ends the input where the task was made so. It ends with the task.

        Raises: FailedPrecondition when the task does not run.
        """

    async def forward_open(self, port: int) -> int:
        """Connect to a TCP port on the pod's loopback; return a descriptor, the caller's.

        Only called where the feature `forwards` is there, for pods whose loopback is not that of their
        network namespace. It is a non-blocking stream socket. When its sending side is shut down, the
        whole connection may end: so callers do that only when they expect no more of the pod.

        Raises: ConnectionRefusedError when nobody listens; FailedPrecondition, Unavailable,
        DeadlineExceeded with the runtime's own words. Takes some seconds at most.
        Cancellation: safe, leaves nothing.
        """

    async def update(self, ref: TaskRef, resources: Mapping[str, Any]) -> None:
        """Apply an OCI `linux.resources` object to a live task."""

    async def checkpoint(self, ref: TaskRef, images: Path, work: Path, *, timeout_seconds: float) -> None:
        """Save the processes of a live task in the directory `images`; they live on.

        Only called where the feature `checkpoint` is there.

        Args:
            work: where logs of the work go.

        Raises: FailedPrecondition, DeadlineExceeded at `timeout_seconds`.
        """

    async def pause(self, ref: TaskRef) -> None:
        """Freeze all processes of the task. Only called where the feature `checkpoint` is there."""

    async def resume(self, ref: TaskRef) -> None:
        """Undo `pause`. A task that is gone or not paused is success."""

    async def usage(self, ref: TaskRef) -> TaskUsage:
        """Ask the runtime what a live task uses. Only called where `usage_in_cgroup` is false.

        Raises: NotFound, Unavailable, DeadlineExceeded. Cancellation: safe; the caller's patience is short.
        """

    async def reopen_log(self, ref: TaskRef) -> None:
        """Make the log writer reopen its path after a rotation; the file exists at return."""

    async def resize(self, ref: TaskRef, *, width: int, height: int) -> None:
        """Set the terminal size, in character cells."""


class Runtime(Protocol):
    """An open handler."""

    async def features(self) -> RuntimeFeatures:
        """Probe the runtime; cached by the driver. Raises Unavailable with the cure."""

    async def start_sandbox(self, start: SandboxStart) -> Sandbox:
        """Bring the sandbox up in the runtime. A failure may leave pieces for `destroy_sandbox`."""

    async def attach_sandbox(self, ref: SandboxRef) -> Sandbox:
        """Open a sandbox that exists already, e.g. after a daemon restart. No side effects."""

    async def destroy_sandbox(self, ref: SandboxRef) -> None:
        """Remove the sandbox from the runtime. Idempotent, right even if start never ran."""


@dataclass(frozen=True, slots=True)
class RuntimeHost:
    """What the daemon gives a runtime when it opens a handler.

    Args:
        stalled_seconds: how long a signal may keep a monitor stopped before it is continued, and when
            stopped again killed, 0 = for ever.
        log_max_bytes: size at which a container's log begins anew, 0 = none.
    """

    facts: HostFacts
    layout: Layout
    conmon_path: str = ""
    log_level: str = "info"
    stalled_seconds: float = 20.0
    log_max_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RuntimeType:
    """A kind of runtime that a plugin offers.

    Args:
        options: a frozen dataclass; the keys of `[runtimes.HANDLER]` that this type understands.
        open: (handler name, options instance, host) -> Runtime; must not block.
        binaries: programs looked for on start, for `noded plugins list`.
    """

    name: str
    options: type
    open: Callable[[str, Any, RuntimeHost], Runtime]
    binaries: tuple[str, ...] = ()
