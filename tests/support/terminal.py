"""A program on a terminal of its own, as a person has it: size, Ctrl-C, resizing."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.support.processes import end, read_bytes_until

REPOSITORY = Path(__file__).resolve().parents[2]
CTRL_C = b"\x03"


class Terminal:
    """Run a program with a new terminal as its controlling one; `seen` is all that it has shown."""

    def __init__(self, command: Sequence[str], *, rows: int = 24, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(rows, columns)
        # What the test was started in must not decide what the program sees.
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env={**environment, "TERM": "xterm"},
        )  # fmt: skip
        os.close(theirs)
        self.seen = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self.process)
        os.close(self._ours)

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the kernel tells the program (SIGWINCH)."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._ours, keys)

    def wait_for(self, text: bytes, seconds: float = 60.0) -> bytes:
        """Wait until the program shows something from now on; return what it has shown until then."""
        shown = read_bytes_until(self._ours, text, seconds)
        self.seen += shown
        return shown

    def wait(self, seconds: float = 60.0) -> int:
        """Read what it shows to its end; return its exit status."""
        try:
            while data := os.read(self._ours, 65536):
                self.seen += data
        except OSError:  # EIO: nobody has the other end
            pass
        return self.process.wait(seconds)
