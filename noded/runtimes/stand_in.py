"""A process that stands for a container whose processes are nobody's children on the host.

gVisor runs all containers of a pod in one process, the sandbox's. A container that joins it leaves
its monitor nothing to watch: it has no process of its own, its output is that of `start`, which
somebody else calls, and its exit code is known to the sandbox only. So the monitor gets a stand-in
for it, made by a script that it runs in place of the runtime:

    create   the runtime's own `create`; then the stand-in, whose pid is put into the pid file
    wait     until a line comes through the fifo BUNDLE/go
    start    the runtime's `start`, with the monitor's pipes; how it ended is in BUNDLE/started
    exit     with the code that the runtime's `wait` tells, 137 when the sandbox itself is gone

It is a shell script because it lives as long as its container: a shell needs a fraction of the
memory of an interpreter.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import trio

from noded.errors import FailedPrecondition, Unavailable
from noded.host.inotify import IN_MOVED_TO, Inotify
from noded.host.processes import ProcessIdentity
from noded.runtimes.failures import runtime_error
from noded.runtimes.killing import wait_dead
from noded.runtimes.records import GO_FIFO, START_LOG, STARTED_FILE
from noded.runtimes.script import ensure_script

_SCRIPT = """\
#!/bin/sh
# Called by the container's monitor in place of the runtime: FLAGS create --bundle DIR --pid-file FILE ... ID
previous=
for word in "$@"; do
    case $previous in
        --bundle) bundle=$word ;;
        --pid-file) pid_file=$word ;;
    esac
    previous=$word
done
id=$previous
{program} "$@" || exit
cd "$bundle" && rm -f {go} {started} && mkfifo -m 600 {go} && exec 3<>{go} 4<&0 || exit
stand_in() {{
    read -r _ <&3 || exit 137
    exec 3<&-
    {runtime} --log="$bundle/{log}" start "$id"
    status=$?
    echo $status >{started}.new && mv {started}.new {started}
    [ $status = 0 ] || exit 128
    exec </dev/null
    answer=$(exec {runtime} wait "$id" 2>/dev/null) || exit 137
    answer=${{answer##*'"exitStatus":'}}
    exit "${{answer%%[!0-9]*}}"
}}
# The shell gives a background command no standard input by itself.
stand_in <&4 4<&- &
echo $! >"$pid_file.new" && mv "$pid_file.new" "$pid_file"
"""


def stand_in_script(runtime: Sequence[str]) -> str:
    """Return the text of the script.

    Args:
        runtime: the runtime's program and the flags that every command of it needs.
    """
    return _SCRIPT.format(
        program=shlex.quote(runtime[0]),
        runtime=shlex.join(runtime),
        go=GO_FIFO,
        started=STARTED_FILE,
        log=START_LOG,
    )


def ensure_stand_in(path: Path, runtime: Sequence[str]) -> None:
    """Write the script unless it is there already. Blocks on a few file operations."""
    ensure_script(path, stand_in_script(runtime))


async def start_by_stand_in(bundle: Path, stand_in: ProcessIdentity | None, action: str) -> None:
    """Let a stand-in start its container; return when it runs.

    Args:
        stand_in: the process, None when it is not known any more.
        action: for the error, reads like "runsc could not start container abc".

    Raises: FailedPrecondition when the stand-in is gone, and what the runtime's words say.
    Cancellation: safe; the container may start nevertheless.
    """
    if stand_in is None or not stand_in.alive():
        raise FailedPrecondition(f"{action}: the process that stands for it is gone: create it anew")
    inotify = Inotify()
    try:
        inotify.watch(bundle, IN_MOVED_TO)
        _go(bundle, action)
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                await wait_dead(stand_in)
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            while _read(bundle / STARTED_FILE) is None:
                await inotify.read()
            nursery.cancel_scope.cancel()
    finally:
        inotify.close()
    status = _read(bundle / STARTED_FILE)
    if status is None:
        raise FailedPrecondition(f"{action}: the process that stands for it was killed")
    if status.strip() != b"0":
        raise runtime_error(
            action, _read(bundle / START_LOG) or b"", f"exit status {status.decode().strip()}"
        )


def _go(bundle: Path, action: str) -> None:
    try:
        # The stand-in holds the fifo open, so this never waits for a reader.
        fd = os.open(bundle / GO_FIFO, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENOENT):
            raise FailedPrecondition(
                f"{action}: it was started before, or what stands for it is gone"
            ) from None
        raise Unavailable(f"{action}: cannot open {bundle / GO_FIFO}: {error.strerror}") from error
    try:
        os.write(fd, b"\n")
    finally:
        os.close(fd)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
