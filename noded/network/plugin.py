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
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, NodedError, Unavailable
from noded.network.answer import Answer, refusal
from noded.network.conflist import is_plugin_type
from noded.network.orphans import OWNER, Adopted
from noded.tracing.spans import span

log = structlog.get_logger(__name__)

# Plugins call iptables, ip, nft and the like by name.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# A result is a few kB; the bounds keep a mad plugin from eating the daemon's memory.
_STDOUT_LIMIT_BYTES = 1 << 20
_STDERR_LIMIT_BYTES = 64 << 10

# How long a child that outlives its plugin may keep the plugin's pipes before they are dropped.
# All that the plugin itself wrote is in the pipes when it exits.
_DRAIN_SECONDS = 1.0

# A killed process is gone at once unless it hangs in the kernel; it is then left to init.
_KILL_SECONDS = 5.0

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
            "CNI_COMMAND": invocation.command,
            "CNI_CONTAINERID": invocation.container_id,
            "CNI_NETNS": invocation.netns,
            "CNI_IFNAME": invocation.ifname,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in invocation.args),
            "CNI_PATH": ":".join(str(directory) for directory in self._bin_dirs),
            OWNER: self._owner,
        }


async def _run(path: Path, environment: Mapping[str, str], stdin: bytes, adopted: Adopted) -> Answer:
    process = await _spawn(path, environment)
    stdout = _Tail(_STDOUT_LIMIT_BYTES, keep_head=True)
    stderr = _Tail(_STDERR_LIMIT_BYTES)
    try:
        async with trio.open_nursery() as pipes:
            pipes.start_soon(_feed, process, stdin)
            pipes.start_soon(_collect, process.stdout, stdout)
            pipes.start_soon(_collect, process.stderr, stderr)
            await process.wait()
            pipes.cancel_scope.deadline = trio.current_time() + _DRAIN_SECONDS
    finally:
        await _end(process)
        if process.returncode is not None:
            adopted.collect(process.pid)
    if process.returncode is None:
        raise Unavailable(f"CNI plugin {path} cannot be killed: it hangs in the kernel (pid {process.pid})")
    return Answer(process.returncode, bytes(stdout.data), bytes(stderr.data), stdout_cut=stdout.cut)


async def _spawn(path: Path, environment: Mapping[str, str]) -> trio.Process:
    give_up_at = trio.current_time() + _BUSY_SECONDS
    while True:
        try:
            return await trio.lowlevel.open_process(
                [str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
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


async def _feed(process: trio.Process, data: bytes) -> None:
    assert process.stdin is not None
    async with process.stdin:
        # A plugin may exit without having read its configuration.
        with suppress(trio.BrokenResourceError):
            await process.stdin.send_all(data)


async def _collect(stream: trio.abc.ReceiveStream | None, into: _Tail) -> None:
    assert stream is not None
    async with stream:
        async for chunk in stream:
            into.add(chunk)


async def _end(process: trio.Process) -> None:
    """Kill the process group unless the plugin has ended by itself, and drop the pipes."""
    with trio.move_on_after(_KILL_SECONDS, shield=True):
        if process.returncode is None:
            # Not reaped yet, so the number still belongs to this group.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                await stream.aclose()
        await process.wait()
    if process.returncode is None:
        log.error("cni_plugin_unkillable", pid=process.pid, cure="it hangs in the kernel; look at its stack")


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


class _Tail:
    """A bounded buffer: keeps the first bytes (`keep_head`) or the last ones, drops the rest."""

    def __init__(self, limit: int, *, keep_head: bool = False) -> None:
        self.data = bytearray()
        self.cut = False
        self._limit = limit
        self._keep_head = keep_head

    def add(self, chunk: bytes | bytearray) -> None:
        self.data += chunk
        excess = len(self.data) - self._limit
        if excess > 0:
            self.cut = True
            if self._keep_head:
                del self.data[self._limit :]
            else:
                del self.data[:excess]
