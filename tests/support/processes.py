"""Starting and ending the programs that tests use, without sleeps."""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import IO

from noded.host import libc
from noded.host.processes import become_subreaper

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@contextmanager
def subreaper() -> Iterator[None]:
    """Get orphaned descendants as children, and not any more at the end: later tests count theirs."""
    become_subreaper()
    try:
        yield
    finally:
        libc.call("prctl", ctypes.c_int(_PR_SET_CHILD_SUBREAPER), *(ctypes.c_ulong(0) for _ in range(4)))


def read_until(
    stream: IO[bytes], process: subprocess.Popen[bytes], wanted: Callable[[str], bool], seconds: float
) -> str:
    """Read lines of a program's output until one is `wanted`; return that line.

    Raises AssertionError with everything read when the program ends or takes too long.
    """
    deadline = monotonic() + seconds
    seen, rest = [], b""
    while True:
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - monotonic()))
        data = os.read(stream.fileno(), 65536) if ready else b""
        if not data:
            state = f"ended with {process.wait()}" if ready else f"is silent after {seconds} s"
            raise AssertionError(f"{process.args!r} {state}:\n" + "\n".join(seen))
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            seen.append(line.decode(errors="replace"))
            if wanted(seen[-1]):
                return seen[-1]


def wait_for_lines(path: Path, text: str, times: int, seconds: float = 30.0) -> None:
    """Wait until so many lines of a growing file have `text` in them, those from before counted."""
    follow = subprocess.Popen(["tail", "-n", "+1", "-F", path], stdout=subprocess.PIPE)
    seen = itertools.count(1)
    try:
        assert follow.stdout is not None
        read_until(follow.stdout, follow, lambda line: text in line and next(seen) == times, seconds)
    finally:
        follow.kill()
        follow.communicate()


def read_bytes_until(descriptor: int, wanted: bytes, seconds: float = 30.0) -> bytes:
    """Read a descriptor until `wanted` is in what was read; return all of it.

    Raises AssertionError with everything read at its end or when it takes too long.
    """
    deadline, seen = monotonic() + seconds, b""
    while wanted not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - monotonic()))
        data = os.read(descriptor, 65536) if ready else b""
        assert data, f"{wanted!r} is not in {seen!r}"
        seen += data
    return seen


def end(process: subprocess.Popen[bytes], seconds: float = 10.0) -> int:
    """Stop a program with SIGTERM, with SIGKILL when that does not help; return its status."""
    if process.poll() is None:
        # A stopped (SIGSTOP) program does not see SIGTERM before it continues.
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def monitors(identity: str) -> list[int]:
    """The process ids of conmon of a container or a pod sandbox."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"--cid" in words and words[words.index(b"--cid") + 1] == identity.encode():
            found.append(int(path.parent.name))
    return found


@contextmanager
def kept_stopped(pid: int) -> Iterator[None]:
    """Have a process stopped again and again (SIGSTOP), whoever continues it, until it is gone."""
    over = threading.Event()

    def stop() -> None:
        # Nobody is told of a continued process but its parent: so it is stopped every 5 ms.
        with suppress(ProcessLookupError):
            while not over.wait(0.005):
                signal.pidfd_send_signal(pidfd, signal.SIGSTOP)

    pidfd = os.pidfd_open(pid)
    thread = threading.Thread(target=stop)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        os.close(pidfd)
