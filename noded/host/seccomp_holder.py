"""Starting and ending the program that holds a container's notification descriptors.

All derives from the paths given, and a holder is found by its socket: `end` is right whether or not
`start` ran, and however far it got.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from noded.errors import NotFound, Unavailable
from noded.host import seccomp_notify
from noded.host.processes import open_pidfd, reap

_START_SECONDS = 20.0
_END_SECONDS = 10.0


def start(path: Path, report: Path, errnos: Mapping[str, int] | None, moved: Callable[[int], None]) -> None:
    """Start a holder that listens at `path`. Blocks until it does.

    Args:
        report, errnos: see `noded.host.seccomp_notify.Holder`.
        moved: told the holder's pid before it may serve, to put it into a cgroup.

    Raises: Unavailable with what the holder said.
    """
    end(path)
    report.unlink(missing_ok=True)
    process = subprocess.Popen(
        [
            sys.executable, "-I", "-S", "-E", seccomp_notify.__file__,
            str(path), str(report), json.dumps(errnos),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        try:
            answer = process.stdout.fileno()
            if not _readable(answer, _START_SECONDS) or not os.read(answer, 64):
                process.kill()
                said = process.stderr.read().decode(errors="replace").strip().splitlines()
                raise Unavailable(f"the seccomp listener did not start: {said[-1] if said else 'no answer'}")
            moved(process.pid)
            os.write(process.stdin.fileno(), b"go\n")
        except BaseException:
            process.kill()
            process.wait()
            raise
    # It outlives us, or is reaped by `end` or as an orphan; Popen shall not touch the pid again.
    process.returncode = 0


def end(path: Path) -> None:
    """Kill the holder that listens at `path`, and remove its socket. None there is success.

    Raises: Unavailable when it does not die.
    """
    pid = _listener(path)
    if pid:
        with suppress(NotFound):
            pidfd = open_pidfd(pid)
            try:
                if _listener(path) == pid:  # so the pidfd is that of the listener
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    if not _readable(pidfd, _END_SECONDS):
                        raise Unavailable(f"the seccomp listener (pid {pid}) does not die")
            finally:
                os.close(pidfd)
        reap(pid)
    path.unlink(missing_ok=True)


def _readable(fd: int, seconds: float) -> bool:
    """Wait until a descriptor, also one above the 1023 of select(2), is readable or at its end."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _listener(path: Path) -> int:
    """The pid of the process that listens at a socket, 0 for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(_END_SECONDS)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return 0
        credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
