"""What the shim driver leaves in bundles, so that another process can carry on with the pod.

PODS/ID/infra/           the sandbox's bundle
  config.json            the sandbox container's OCI spec, or only its annotations without one
  log                    fifo of the shim's own log
  address                where the shim listens, written by the shim
  shim.json              the shim: address, version of its API, process
  task.json              the sandbox container's record, if there is one
PODS/ID/ID -> infra      shims look for a bundle by its id beside their working directory
CONTAINERS/ID/           a container's bundle
  task.json              `noded.runtimes.records.TaskRecord`; its monitor is the shim
  stdin stdout stderr    fifos between the shim and noded
  exec-*                 fifos of a running exec
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from noded.host.files import publish
from noded.host.processes import ProcessIdentity
from noded.runtimes.records import EXEC_PREFIX

NAMESPACE = "noded"  # containerd's word for a set of ids; it is part of the socket's name

SHIM_FILE = "shim.json"
ADDRESS_FILE = "address"
SHIM_LOG_FIFO = "log"
STDIN_FIFO = "stdin"
STDIN_ONCE_FILE = "stdin.once"  # there if the first attachment that ends its input ends the task's
STDOUT_FIFO = "stdout"
STDERR_FIFO = "stderr"

# Patterns of all that a task leaves in its bundle but its record, the shim's own files included.
TASK_LEFTOVERS = (
    STDIN_FIFO,
    STDIN_ONCE_FILE,
    STDOUT_FIFO,
    STDERR_FIFO,
    f"{EXEC_PREFIX}*",
    "init.pid",
    "*.pid",
    "log.json",
    "options.json",
    "runtime",
    "shim-binary-path",
    "sandbox",
)
# With a dot: a file that the shim was about to put in place when it was killed.
SHIM_LEFTOVERS = (
    SHIM_LOG_FIFO,
    ADDRESS_FILE,
    f".{ADDRESS_FILE}",
    "shim.pid",
    ".shim.pid",
    "bootstrap.json",
    ".bootstrap.json",
    SHIM_FILE,
)


@dataclass(frozen=True, slots=True)
class ShimRecord:
    """A running shim. `version` is that of its task API: 2 or 3."""

    address: str
    version: int
    process: ProcessIdentity

    def to_json(self) -> bytes:
        process = [self.process.pid, self.process.start_time]
        return json.dumps({"address": self.address, "version": self.version, "process": process}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> ShimRecord:
        """Raises: ValueError, KeyError or TypeError when `data` is not a record."""
        value = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError(f"a record is an object, not {type(value).__name__}")
        pid, start_time = value["process"]
        return cls(str(value["address"]), int(value["version"]), ProcessIdentity(int(pid), int(start_time)))


def write_shim(bundle: Path, record: ShimRecord) -> None:
    publish(bundle / SHIM_FILE, record.to_json(), 0o600, durable=False)


def read_shim(bundle: Path) -> ShimRecord | None:
    """Return the record, None when there is none or it is not readable."""
    try:
        return ShimRecord.from_json((bundle / SHIM_FILE).read_bytes())
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_leftovers(bundle: Path, patterns: tuple[str, ...]) -> None:
    """Remove what matches in a bundle; directories are left. Idempotent. Blocks."""
    for pattern in patterns:
        for path in bundle.glob(pattern):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
