"""What a runtime said when it failed, as an error that tells the caller what to do."""

from __future__ import annotations

import json
import re

from noded.errors import (
    FailedPrecondition,
    NodedError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

# logrus text format, which runc writes to a standard error that is not a terminal.
_LOGRUS = re.compile(r'^time="[^"]*" level=(?P<level>\w+) msg=(?P<msg>"(?:[^"\\]|\\.)*"|\S+)')

_MESSAGE_LIMIT = 2000  # characters; gRPC metadata and Kubernetes events cut much longer ones

# First match wins: (pattern of the runtime's words, class, what to do).
_CAUSES: tuple[tuple[re.Pattern[str], type[NodedError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, hint)
    for pattern, kind, hint in (
        (
            r"executable file .*not found|exec: .*no such file or directory|exec.* failed: No such file",
            FailedPrecondition,
            "the command is not in the image or its interpreter is missing; check command and PATH",
        ),
        (
            r"exec: .*permission denied|open executable: permission denied|execve?.*permission denied",
            FailedPrecondition,
            "the command is not executable for the container's user",
        ),
        (r"exec format error", FailedPrecondition, "the image was built for another architecture"),
        (
            r"(chdir|cwd)\b.*(not a directory|permission denied|no such file)",
            FailedPrecondition,
            "the container's user cannot enter its working directory",
        ),
        (
            r"OOM-killed|memory limit too low",
            FailedPrecondition,
            "the memory limit is too low to start the container; raise it",
        ),
        (
            r"final child's PID from pipe|oom_score_adj|oomScoreAdj|setrlimit|not permitted.*rlimit",
            FailedPrecondition,
            "lowering oom_score_adj or raising a hard limit needs CAP_SYS_RESOURCE in the daemon",
        ),
        (r"no space left on device", ResourceExhausted, "free space or inodes, or raise a cgroup limit"),
        (
            r"too many open files|resource temporarily unavailable|cannot allocate memory",
            ResourceExhausted,
            "raise the limit of files, processes or memory of the node or the pod",
        ),
        (
            r'^container (with given ID |"[^"]+" )?(does not exist|not found)|/status`: No such file'
            r"|^loading container.*: file does not exist",
            NotFound,
            "the runtime does not know this container",
        ),
        (
            r"cannot (exec|start|signal)\b|is not running|container not running|not in .?created",
            FailedPrecondition,
            "the container is not in the state that this needs",
        ),
        (
            r"drop all controllers from cgroupv2",
            FailedPrecondition,
            "the runtime refuses a hybrid cgroup host",
        ),
        (r"device or resource busy|text file busy", Unavailable, "try again"),
        (r"unknown (version|ociVersion)|unsupported.*version", FailedPrecondition, "upgrade the runtime"),
    )
)


def plain_words(output: bytes) -> str:
    """Return the runtime's own error text from its standard error or log, in one paragraph.

    Understands plain text, logrus text and JSON lines; of several lines the errors are kept.
    """
    errors: list[str] = []
    others: list[str] = []
    for line in output.decode(errors="replace").splitlines():
        text, level = _parse_line(line.strip())
        if text:
            (errors if level in ("error", "fatal", "panic", "") else others).append(text)
    words = "; ".join(dict.fromkeys(errors or others))
    return words if len(words) <= _MESSAGE_LIMIT else words[:_MESSAGE_LIMIT] + "..."


def _parse_line(line: str) -> tuple[str, str]:
    if line.startswith("{"):
        try:
            entry = json.loads(line)
        except ValueError:
            return line, ""
        if isinstance(entry, dict) and isinstance(entry.get("msg"), str):
            return entry["msg"], str(entry.get("level", ""))
        return line, ""
    match = _LOGRUS.match(line)
    if match is None:
        return line, ""
    quoted = match["msg"]
    if quoted.startswith('"'):
        try:
            # Go's strconv.Quote and JSON agree except for \x and \a-like escapes.
            return str(json.loads(quoted)), match["level"]
        except ValueError:
            return quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\"), match["level"]
    return quoted, match["level"]


def runtime_error(action: str, output: bytes, status: str = "") -> NodedError:
    """Return (not raise) the error for a failed runtime command.

    Args:
        action: reads like "runc could not create container abc".
        output: what the runtime wrote.
        status: how it ended, used when it wrote nothing.
    """
    words = plain_words(output)
    for pattern, kind, hint in _CAUSES:
        if pattern.search(words):
            return kind(f"{action}: {words} ({hint})")
    return FailedPrecondition(f"{action}: {words or status or 'it gave no reason'}")


def ending(returncode: int) -> str:
    """Say how a command ended, for messages."""
    if returncode < 0:
        return f"killed by signal {-returncode}"
    return f"exit status {returncode}"
