"""Starting a shim, finding it again, and its `delete` command for when it is dead.

A shim's program is called with `start`: it forks the real shim, prints where that listens, and
ends. The shim is then a child of the daemon, which is a subreaper, until the daemon restarts.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import structlog
import trio

from noded.errors import DeadlineExceeded, NodedError, Unavailable, Unimplemented
from noded.host.processes import ProcessIdentity, argument_of, commands
from noded.runtimes.command import Completed, clean_environment
from noded.runtimes.failures import ending, plain_words, runtime_error
from noded.runtimes.killing import stop_and_kill, wait_gone
from noded.runtimes.shim_record import ADDRESS_FILE, NAMESPACE
from noded.runtimes.ttrpc_client import socket_path
from noded.wire.ttrpc_task import SERVICES, Any

_log = structlog.get_logger(__name__)

_ANSWER_BYTES = 4096
_KILL_SECONDS = 5.0


class Endpoint(NamedTuple):
    """Where a shim listens, and the version of its task API."""

    address: str
    version: int


def parse_answer(answer: bytes) -> Endpoint:
    """Read what `start` printed: an address, or on newer shims JSON {version, address, protocol}.

    Raises: Unavailable for nonsense; Unimplemented for a protocol or version that noded does not speak.
    """
    text = answer[:_ANSWER_BYTES].decode(errors="replace").strip()
    endpoint = Endpoint(text, 2)
    if text.startswith("{"):
        try:
            value = json.loads(text)
            endpoint = Endpoint(str(value["address"]), int(value.get("version") or 2))
            protocol = str(value.get("protocol") or "ttrpc")
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"the shim's answer to start is broken: {text[:200]!r}") from None
        if protocol != "ttrpc":
            raise Unimplemented(f"the shim speaks {protocol!r}; noded speaks ttrpc only")
    if endpoint.version not in SERVICES:
        raise Unimplemented(f"the shim has version {endpoint.version} of the task API; noded knows 2 and 3")
    try:
        socket_path(endpoint.address)
    except ValueError as error:
        raise Unavailable(f"the shim's answer to start has no address: {error}") from None
    return endpoint


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How to call one handler's shim program.

    Args:
        options: what the shim is told on standard input, None = nothing.
    """

    program: str
    name: str
    options: Any | None
    environment: Mapping[str, str]

    async def start(self, sandbox_id: str, bundle: Path, *, timeout_seconds: float) -> Endpoint:
        """Start the pod's shim, or find the one that runs.

        Raises: Unavailable, FailedPrecondition with the shim's words; DeadlineExceeded.
        Cancellation: the starting program is killed with what it forked. A shim that it had let go
            is left for `find_shims`.
        """
        done = await self._run(sandbox_id, bundle, "start", timeout_seconds=timeout_seconds)
        if done.returncode != 0:
            raise runtime_error(
                f"{self.name} could not start for pod sandbox {sandbox_id}",
                done.stderr or done.stdout,
                ending(done.returncode),
            )
        return parse_answer(done.stdout)

    async def delete(self, task_id: str, bundle: Path, *, timeout_seconds: float) -> None:
        """Have a task's remains removed without its shim. Never raises: what is left is logged."""
        problem = ""
        try:
            done = await self._run(
                task_id, bundle, "delete", options=("-bundle", str(bundle)), timeout_seconds=timeout_seconds
            )
            if done.returncode != 0:
                problem = plain_words(done.stderr) or ending(done.returncode)
        except (DeadlineExceeded, Unavailable) as error:
            problem = str(error)
        if problem:
            # Also for a task that was never created, about which a shim knows nothing.
            _log.info("shim_delete_failed", container=task_id, shim=self.name, reason=problem)

    async def _run(
        self,
        task_id: str,
        bundle: Path,
        verb: str,
        *,
        timeout_seconds: float,
        options: tuple[str, ...] = (),
    ) -> Completed:
        argv = [
            self.program, "-namespace", NAMESPACE, "-address", "", "-publish-binary", "/bin/true",
            "-id", task_id, *options, verb,
        ]  # fmt: skip
        environment = {
            "GOMAXPROCS": "2",
            "MAX_SHIM_VERSION": str(max(SERVICES)),
            # No containerd, so nobody takes events: exits are learnt by waiting.
            "TTRPC_ADDRESS": "",
            "GRPC_ADDRESS": "",
            "NAMESPACE": NAMESPACE,
            # Of a path with links Go programs know only this form, and look for neighbours of it.
            "PWD": str(bundle),
            **self.environment,
        }
        with trio.move_on_after(timeout_seconds):
            try:
                done = await trio.run_process(
                    argv,
                    stdin=self.options.encode() if self.options is not None else b"",
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                    cwd=bundle,
                    env=clean_environment(environment),
                    process_group=0,
                    deliver_cancel=_kill_tree,
                )
            except OSError as error:
                raise Unavailable(f"cannot run {self.program} in {bundle}: {error.strerror}") from error
            return Completed(done.returncode, done.stdout or b"", done.stderr or b"")
        raise DeadlineExceeded(
            f"{self.name} {verb} did not finish within {timeout_seconds:g} s and was killed"
        )


async def _kill_tree(process: trio.Process) -> None:
    """trio's `deliver_cancel`: also a shim that was just forked, which leads a group of its own."""
    # trio cancels this when the process is dead, but then there is still more to collect.
    with trio.CancelScope(shield=True):
        if (identity := ProcessIdentity.of(process.pid)) is None:
            return
        killed = await trio.to_thread.run_sync(stop_and_kill, [identity], set)
        with trio.move_on_after(_KILL_SECONDS):
            await process.wait()
        try:
            forked = [each for each in killed if each.pid != process.pid]
            await wait_gone(forked, timeout_seconds=_KILL_SECONDS)
        except Unavailable as error:
            _log.warning("shim_not_killed", reason=str(error))


def find_shims(sandbox_id: str) -> list[ProcessIdentity]:
    """Return the live shims of a pod, by their command lines. Blocks on /proc.

    For a daemon that died between a shim's start and its record.
    """
    found = []
    wanted = NAMESPACE.encode(), sandbox_id.encode()
    for pid, words in commands():
        if (argument_of(words, b"-namespace"), argument_of(words, b"-id")) == wanted:
            identity = ProcessIdentity.of(pid)
            if identity is not None and identity.alive():
                found.append(identity)
    return found


def read_address(bundle: Path) -> str:
    """Return what the shim wrote into its bundle, "" when it did not."""
    try:
        return parse_answer((bundle / ADDRESS_FILE).read_bytes()).address
    except (OSError, NodedError):
        return ""


def usual_address(sandbox_id: str) -> str:
    """Return where containerd's shim library listens: for a shim killed before it could tell.

    The name depends on containerd's address, which is empty here, the namespace and the id.
    """
    name = hashlib.sha256(f"{NAMESPACE}/{sandbox_id}".encode()).hexdigest()
    return f"unix:///run/containerd/s/{name}"


def remove_socket(address: str) -> None:
    """Remove the socket file of a dead shim. Anything but a socket is left alone. Idempotent."""
    try:
        path = socket_path(address)
    except ValueError:
        return
    with suppress(OSError):
        if path.startswith("/") and stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
