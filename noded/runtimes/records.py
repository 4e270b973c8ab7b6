"""What a driver leaves in a bundle, so that another process can carry on with the container.

    BUNDLE/config.json   the OCI spec, written by the engine
    BUNDLE/task.json     this record: written before the monitor may act, again when init exists
    BUNDLE/pidfile       pid of init, written by the runtime for the monitor
    BUNDLE/ctl winsz     conmon's control fifos
    BUNDLE/attach        conmon's attach socket (SOCK_SEQPACKET)
    BUNDLE/oom           left by conmon when the kernel reported an OOM
    BUNDLE/exec-*        process and pid files of a running exec
    BUNDLE/go started    what a stand-in waits for and what it tells (noded.runtimes.stand_in)
    BUNDLE/start.log     what the runtime said when a stand-in started the container
    BUNDLE/restore.log   what CRIU said when it restored the container

Bundles live on a tmpfs: a record never outlives a boot, so a start time identifies a process.
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass
from pathlib import Path

from noded.host.files import names_in, publish
from noded.host.processes import ProcessIdentity
from noded.host.small_files import read_small

CONFIG_FILE = "config.json"
TASK_FILE = "task.json"
PID_FILE = "pidfile"
CONTROL_FIFO = "ctl"
ATTACH_SOCKET = "attach"
OOM_FILE = "oom"
EXEC_PREFIX = "exec-"
FORWARD_PREFIX = "forward-"
FORWARDS_FILE = "forwards"  # its sandbox was started by a release that can forward ports
GO_FIFO = "go"
STARTED_FILE = "started"
START_LOG = "start.log"
DUMP_LOG = "dump.log"  # of CRIU, in the work directory
RESTORE_LOG = "restore.log"

# Patterns of all that a create, exec or port-forward may leave, temporary files of killed programs included.
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
    f"{FORWARD_PREFIX}*",
    FORWARDS_FILE,
    "conmon-term.*",
    f"{PID_FILE}.new",
    GO_FIFO,
    STARTED_FILE,
    f"{STARTED_FILE}.new",
    START_LOG,
    RESTORE_LOG,
    "stats-restore",
    "descriptors.json",
)
_LEFTOVER = re.compile("|".join(map(fnmatch.translate, LEFTOVERS)))


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """The processes of a task. `init` is None until the runtime has made it.

    `helpers` are what a runtime whose processes are not the host's runs beside it, e.g. a file server.
    """

    log_path: str
    monitor: ProcessIdentity
    init: ProcessIdentity | None = None
    helpers: tuple[ProcessIdentity, ...] = ()

    def to_json(self) -> bytes:
        value: dict[str, object] = {"log_path": self.log_path, "monitor": _pair(self.monitor)}
        if self.init is not None:
            value["init"] = _pair(self.init)
        if self.helpers:
            value["helpers"] = [_pair(helper) for helper in self.helpers]
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
            helpers=tuple(_identity(pair) for pair in value.get("helpers", ())),
        )


def _pair(identity: ProcessIdentity) -> list[int]:
    return [identity.pid, identity.start_time]


def _identity(pair: list[int]) -> ProcessIdentity:
    pid, start_time = pair
    return ProcessIdentity(int(pid), int(start_time))


def write_record(bundle: Path, record: TaskRecord) -> None:
    publish(bundle / TASK_FILE, record.to_json(), 0o600, durable=False)


def read_record(bundle: Path) -> TaskRecord | None:
    """Return the record, None when there is none (create never got so far) or it is cut short.

    Raises: OSError when it cannot be read now, which says nothing about the task.
    """
    try:
        data = read_small(bundle / TASK_FILE)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return TaskRecord.from_json(data)
    except (ValueError, KeyError, TypeError):
        return None


def read_pid_file(path: Path) -> int | None:
    """Return the pid in a pid file, None when there is none."""
    try:
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) > 0 else None


def runtime_state(root: Path, task_id: str) -> list[Path]:
    """What a runtime keeps about a task below its root: a directory ID, or files ID_sandbox:SANDBOX.*."""
    return [root / name for name in names_in(root) if name.startswith(task_id)]


def leftovers(bundle: Path) -> list[Path]:
    """What is there of `LEFTOVERS`."""
    return [bundle / name for name in names_in(bundle) if _LEFTOVER.fullmatch(name)]
