"""`noded logs`: what a container has written, from the log file that its status names."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from noded.cli import follow
from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.pods import LogLine
from noded.cli.log_lines import Renderer, parse
from noded.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from noded.proto.runtime import v1 as cri

_OVER = (cri.ContainerState.CONTAINER_EXITED, cri.ContainerState.CONTAINER_UNKNOWN)


def logs(arguments: argparse.Namespace) -> int:
    """Print a container's log; with --follow until the container exits."""
    reply = wait_for(_status(arguments.address, arguments.timeout, arguments.id))
    status = reply.status or cri.ContainerStatus()
    if not status.log_path:
        raise FailedPrecondition(f"container {status.id} was created without a log path: it has no log")
    path = Path(status.log_path)
    offset = 0 if arguments.tail is None else follow.tail(path, arguments.tail)
    with ExitStack() as cleanup:
        if not arguments.follow or status.state in _OVER:
            reader = follow.LogReader(path, offset)
            cleanup.callback(reader.close)
            lines: Iterable[bytes] = reader.read()
        else:
            exited = _pidfd(reply)
            if exited is not None:
                cleanup.callback(os.close, exited)

            def over() -> bool:
                return finished(arguments.address, status.id)

            lines = follow.follow(path, offset, exited, over)
        if arguments.json:
            _print_json_lines(lines)
        else:
            print_lines(lines, Renderer(timestamps=arguments.timestamps))
    return 0


def print_lines(lines: Iterable[bytes], renderer: Renderer) -> None:
    """Write each line of a log to the output that it came from."""
    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    for line in lines:
        entry = parse(line)
        output = outputs[entry.stream]
        output.write(renderer.render(entry))
        output.flush()


def _print_json_lines(lines: Iterable[bytes]) -> None:
    for line in lines:
        entry = parse(line)
        found: LogLine = {
            "time": entry.time,
            "stream": "stderr" if entry.stream == "stderr" else "stdout",
            "partial": entry.partial,
            "text": entry.content.decode(errors="replace"),
        }
        print(json.dumps(found), flush=True)


async def _status(address: str, timeout: float | None, container: str) -> cri.ContainerStatusResponse:
    timeout = query_seconds(timeout)
    async with Daemon(address) as daemon:
        listed = await daemon.runtime(
            "ListContainers", cri.ListContainersRequest(), cri.ListContainersResponse, timeout
        )
        found = [item.id for item in listed.containers if item.id.startswith(container)]
        if len(found) > 1 and container not in found:
            raise InvalidArgument(f"{container} is the start of {len(found)} container ids: give more of it")
        if not found:
            raise NotFound(f"no container {container}")
        identifier = container if container in found else found[0]
        request = cri.ContainerStatusRequest(container_id=identifier, verbose=True)
        return await daemon.runtime("ContainerStatus", request, cri.ContainerStatusResponse, timeout)


def _pidfd(reply: cri.ContainerStatusResponse) -> int | None:
    """A descriptor that is readable once the container's process is dead.

    None when the daemon does not tell the pid: then only Ctrl-C ends following.
    """
    pid = json.loads(reply.info.get("info", "{}")).get("pid", 0)
    if not pid:
        return None
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)  # dead already: always readable


def finished(address: str, container: str) -> bool:
    """Whether the daemon has a container's exit on record, or no container of this id any more."""
    try:
        status = wait_for(_status(address, None, container)).status
    except NotFound:
        return True  # removed: nothing more is written
    except (Unavailable, DeadlineExceeded):
        return False  # the daemon restarts: it will know
    return status is None or status.state in _OVER
