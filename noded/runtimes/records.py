"""What a driver leaves in a bundle, so that another process can carry on with the container.

    BUNDLE/config.json   the OCI spec, written by the engine
    BUNDLE/task.json     this record: written before the monitor may act, again when init exists
    BUNDLE/pidfile       pid of init, written by the runtime for the monitor
    BUNDLE/ctl winsz     conmon's control fifos
    BUNDLE/attach        conmon's attach socket (SOCK_SEQPACKET)
    BUNDLE/oom           left by conmon when the kernel reported an OOM
    BUNDLE/exec-*        process and pid files of a running exec

Bundles live on a tmpfs: a record never outlives a boot, so a start time identifies a process.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from noded.host.files import publish
from noded.host.processes import ProcessIdentity

CONFIG_FILE = "config.json"
TASK_FILE = "task.json"
PID_FILE = "pidfile"
CONTROL_FIFO = "ctl"
ATTACH_SOCKET = "attach"
OOM_FILE = "oom"
EXEC_PREFIX = "exec-"

# Patterns of all that a create or exec may leave, temporary files of killed programs included.
# config.json and rootfs are not among them: those belong to the engine.
LEFTOVERS = (
    TASK_FILE,
    PID_FILE,
    f".{PID_FILE}*",
    CONTROL_FIFO,
    "winsz",
    ATTACH_SOCKET,
    OOM_FILE,
    f"{EXEC_PREFIX}*",
    f".{EXEC_PREFIX}*",
    "conmon-term.*",
)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The processes of a task. `init` is None until the runtime has made it."""

    log_path: str
    monitor: ProcessIdentity
    init: ProcessIdentity | None = None

    def to_json(self) -> bytes:
        value: dict[str, object] = {"log_path": self.log_path, "monitor": _pair(self.monitor)}
        if self.init is not None:
            value["init"] = _pair(self.init)
        return json.dumps(value).encode()

    @classmethod
    def from_json(cls, data: bytes) -> TaskRecord:
        """Raises: ValueError, KeyError or TypeError when `data` is not a record."""
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError(f"a record is an object, not {type(value).__name__}")
        init = value.get("init")
        return cls(
            log_path=str(value["log_path"]),
            monitor=_identity(value["monitor"]),
            init=None if init is None else _identity(init),
        )


def _pair(identity: ProcessIdentity) -> list[int]:
    return [identity.pid, identity.start_time]


def _identity(pair: list[int]) -> ProcessIdentity:
    pid, start_time = pair
    return ProcessIdentity(int(pid), int(start_time))


def write_record(bundle: Path, record: TaskRecord) -> None:
    publish(bundle / TASK_FILE, record.to_json(), 0o600, durable=False)


def read_record(bundle: Path) -> TaskRecord | None:
    """Return the record, None when there is none (create never got so far) or it is not readable."""
    try:
        return TaskRecord.from_json((bundle / TASK_FILE).read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_pid_file(path: Path) -> int | None:
    """Return the pid in a pid file, None when there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None
