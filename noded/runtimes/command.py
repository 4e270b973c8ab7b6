"""Running the runtime's program: its command line, and short commands under a deadline."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, Unavailable
from noded.host.program import run_program
from noded.tracing.spans import span

_log = structlog.get_logger(__name__)

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Statistics and states are some kB; a list of many containers is never asked for.
_STDOUT_LIMIT_BYTES = 16 << 20
_STDERR_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Completed:
    """A finished command. `returncode` is negative for a signal, as in subprocess."""

    returncode: int
    stdout: bytes
    stderr: bytes


def find_program(name: str, package: str) -> str:
    """Return the absolute path of a program, given by name or path.

    Raises: Unavailable that names what to install.
    """
    found = shutil.which(name, path=os.environ.get("PATH", DEFAULT_PATH))
    if found is None:
        where = name if "/" in name else f"{name} in PATH"
        raise Unavailable(f"cannot find the program {where}: install the package {package!r} or set its path")
    return os.path.abspath(found)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of runtimes and monitors.

    The daemon's own one is not inherited: NOTIFY_SOCKET would make runc proxy sd_notify into the
    container, LISTEN_FDS would hand it descriptors that do not exist.
    """
    return {"PATH": os.environ.get("PATH", DEFAULT_PATH), **extra}


def umask_of(process: Mapping[str, Any]) -> int:
    """The umask to run a runtime's `exec` with, -1 = the daemon's.

    runc 1.1 overlooks the one in the process object: what it starts has its own.
    """
    umask = process.get("user", {}).get("umask")
    return -1 if umask is None else int(umask)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """How to call one handler's runtime.

    Args:
        program: absolute path of the runtime.
        monitored: what a monitor must run instead for `create`; the program itself or a wrapper.
        wrapped: verbs that must go through `monitored` when called directly, too.
        global_args: flags before the verb, on every command.
        direct_args: further such flags, which a monitor adds by itself.
    """

    program: str
    monitored: str
    wrapped: frozenset[str]
    global_args: tuple[str, ...]
    direct_args: tuple[str, ...]
    environment: Mapping[str, str]

    def argv(self, verb: str, *args: str, globals_: Sequence[str] = ()) -> list[str]:
        program = self.monitored if verb in self.wrapped else self.program
        return [program, *self.direct_args, *self.global_args, *globals_, verb, *args]

    async def run(
        self, verb: str, *args: str, timeout_seconds: float, stdin: bytes = b"", cwd: Path | None = None
    ) -> Completed:
        """Run one command to its end and collect its output.

        Raises: DeadlineExceeded naming the command; Unavailable if it cannot be executed.
        Cancellation: the command's process group is killed.
        """
        argv = self.argv(verb, *args)
        with span(f"{os.path.basename(self.program)} {verb}"):
            return await run(
                argv, timeout_seconds=timeout_seconds, stdin=stdin, cwd=cwd, environment=self.environment
            )


async def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    cwd: Path | None = None,
) -> Completed:
    """Run a short command in its own process group; see `CommandLine.run`."""
    started = trio.current_time()
    with trio.move_on_after(timeout_seconds) as scope:
        try:
            done = await run_program(
                argv,
                environment=clean_environment(environment),
                stdin=stdin,
                cwd=cwd,
                stdout_limit_bytes=_STDOUT_LIMIT_BYTES,
                stderr_limit_bytes=_STDERR_LIMIT_BYTES,
            )
        except OSError as error:
            raise Unavailable(f"cannot run {argv[0]}: {error.strerror or error}") from error
        _log.debug(
            "runtime_command",
            argv=list(argv),
            code=done.returncode,
            seconds=round(trio.current_time() - started, 3),
        )
        return Completed(done.returncode, done.stdout, done.stderr)
    assert scope.cancelled_caught
    raise DeadlineExceeded(f"{' '.join(argv)} did not finish within {timeout_seconds:g} s and was killed")


def spawn(
    argv: Sequence[str], *, environment: Mapping[str, str], cwd: Path, stderr: int, pass_fds: Sequence[int]
) -> int:
    """Start a process that outlives the daemon, in its own session; return its pid.

    Blocks until the program is executed. The caller owns the pid and reaps it through a pidfd.

    Raises: OSError when it cannot be executed.
    """
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        pass_fds=tuple(pass_fds),
        env=clean_environment(environment),
        cwd=cwd,
        start_new_session=True,
    )
    # Popen would reap an abandoned child at a later Popen call, perhaps after its pid was reused.
    # With a return code set it considers the child finished and never touches the pid again.
    process.returncode = 0
    return process.pid
