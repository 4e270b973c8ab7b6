"""Runs CNI plugin programs: one call, one process group, one deadline.

A plugin gets its configuration on stdin and its parameters in the environment, and nothing of
noded's own environment or open files. At the deadline, and when the caller is cancelled, its whole
process group is killed. What a plugin leaves running after it has exited is its own business.

Spec: 1.1.0 section 2 (protocol).
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NodedError, Unavailable
from noded.host.program import run_program
from noded.network.answer import Answer, refusal
from noded.network.conflist import is_plugin_type
from noded.network.orphans import OWNER, Adopted
from noded.tracing.spans import span

log = structlog.get_logger(__name__)

# Plugins call iptables, ip, nft and the like by name.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_ROOT = Path("/")

# A result is a few kB; the bounds keep a mad plugin from eating the daemon's memory.
_STDOUT_LIMIT_BYTES = 1 << 20
_STDERR_LIMIT_BYTES = 64 << 10

# A plugin file that an installer still writes cannot be run (ETXTBSY): wait that long for it.
_BUSY_SECONDS = 5.0
_BUSY_PAUSE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Invocation:
    """The parameters of one call. Only attachment verbs have more than a command."""

    command: str
    network: str
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: tuple[tuple[str, str], ...] = ()


class Budget:
    """The time that a whole list of plugins shares, counted from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.deadline = trio.current_time() + seconds


class Plugins:
    """The plugin programs of the node: finds them in `bin_dirs`, first match wins, and runs them.

    Args:
        owner: tells this noded's plugin processes from those of others, see `orphans`.
    """

    def __init__(self, bin_dirs: tuple[Path, ...], owner: str) -> None:
        self._bin_dirs = bin_dirs
        self._owner = owner
        self._adopted = Adopted()

    def find(self, type_: str) -> Path:
        """Return the program of a plugin type.

        Raises:
            FailedPrecondition: the type is not a plain file name.
            Unavailable: no directory has it; the message names them all.
        """
        if not is_plugin_type(type_):
            raise FailedPrecondition(f"CNI plugin type {type_!r} must be a plain file name, without '/'")
        for directory in self._bin_dirs:
            path = directory / type_
            if path.is_file() and os.access(path, os.X_OK):
                return path
        searched = ", ".join(str(directory) for directory in self._bin_dirs) or "no directory"
        raise Unavailable(
            f"CNI plugin {type_!r} is missing: install it in one of [network] bin_dirs ({searched})"
        )

    async def call(
        self, type_: str, invocation: Invocation, request: Mapping[str, Any], budget: Budget
    ) -> Answer:
        """Run one plugin and return what it answered, whether success or refusal.

        Args:
            request: the JSON for its standard input.
            budget: when it ends, the plugin's process group is killed.

        Raises:
            Unavailable: the program is missing or cannot be run.
            DeadlineExceeded: it did not end in time; names plugin, verb and budget.

        Cancellation: kills the plugin's process group, then returns.
        """
        path = self.find(type_)
        late = f"CNI plugin {type_!r} did not answer {invocation.command} of network {invocation.network!r}"
        with trio.move_on_at(budget.deadline):
            stdin = json.dumps(request).encode()
            with span(f"CNI {type_} {invocation.command}", network=invocation.network) as step:
                answer = await _run(path, self._environment(invocation), stdin, self._adopted)
                if (why := refusal(answer)) is not None:
                    step.fail(why.message)
            _trace(type_, invocation, answer)
            return answer
        raise DeadlineExceeded(f"{late} within {budget.seconds:g} s and was killed; look at the plugin's log")

    def _environment(self, invocation: Invocation) -> dict[str, str]:
        return {
            "PATH": _PATH,
            "GOMAXPROCS": "1",  # most are Go programs of some ms, too short to gain by more threads
            "CNI_COMMAND": invocation.command,
            "CNI_CONTAINERID": invocation.container_id,
            "CNI_NETNS": invocation.netns,
            "CNI_IFNAME": invocation.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in invocation.args),
            "CNI_PATH": ":".join(str(directory) for directory in self._bin_dirs),
            OWNER: self._owner,
        }


async def _run(path: Path, environment: Mapping[str, str], stdin: bytes, adopted: Adopted) -> Answer:
    give_up_at = trio.current_time() + _BUSY_SECONDS
    while True:
        try:
            done = await run_program(
                [str(path)],
                environment=environment,
                stdin=stdin,
                cwd=_ROOT,
                new_session=True,
                stdout_limit_bytes=_STDOUT_LIMIT_BYTES,
                stderr_limit_bytes=_STDERR_LIMIT_BYTES,
                collect=adopted.collect,
            )
            return Answer(done.returncode, done.stdout, done.stderr, stdout_cut=done.stdout_cut)
        except OSError as error:
            if error.errno != errno.ETXTBSY or trio.current_time() >= give_up_at:
                raise _unrunnable(path, error) from error
        await trio.sleep(_BUSY_PAUSE_SECONDS)


def _unrunnable(path: Path, error: OSError) -> NodedError:
    if error.errno == errno.ENOEXEC:
        return FailedPrecondition(
            f"CNI plugin {path} is not a program for this machine: install the right architecture, "
            "or begin a script with '#!'"
        )
    return Unavailable(f"CNI plugin {path} cannot be run: {error.strerror}")


def _trace(type_: str, invocation: Invocation, answer: Answer) -> None:
    log.debug(
        "cni_plugin",
        plugin=type_,
        command=invocation.command,
        network=invocation.network,
        sandbox=invocation.container_id[:12],
        returncode=answer.returncode,
        stderr=answer.stderr[-2000:].decode("utf-8", "replace"),
    )
