"""The files of one command in the bundle of its container."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from noded.host.files import names_in
from noded.runtimes.records import EXEC_PREFIX


@dataclass(frozen=True, slots=True)
class ExecFiles:
    """Names that no other command of the container has."""

    bundle: Path
    _stem: str = field(default_factory=lambda: EXEC_PREFIX + secrets.token_hex(8))

    @property
    def process(self) -> Path:
        """What to run, as the runtime reads it."""
        return self.bundle / f"{self._stem}.json"

    @property
    def pid(self) -> Path:
        """Where the runtime writes the process id."""
        return self.bundle / f"{self._stem}.pid"

    @property
    def internal_pid(self) -> Path:
        """The same, as the container sees it; see `OciQuirks.internal_pid_file`."""
        return self.bundle / f"{self._stem}.inside"

    @property
    def console_name(self) -> str:
        """Name of the socket to which the runtime sends the terminal."""
        return f"{self._stem}.tty"

    def remove(self) -> None:
        """Remove all of them, also the temporary file that a killed runtime leaves of a pid file."""
        for name in names_in(self.bundle):
            if name.removeprefix(".").startswith(self._stem):
                (self.bundle / name).unlink(missing_ok=True)
