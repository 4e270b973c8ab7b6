"""A daemon over this node's state for one command, on a socket that no kubelet knows."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import select
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from noded import config_text
from noded.cli import program
from noded.config import Config
from noded.errors import Unavailable
from noded.host import files
from noded.images.unpack.confine import die_with_parent

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0
_PREFIX = "alone-"
_ENDS = (signal.SIGHUP, signal.SIGTERM)  # a lost terminal, and kill


@contextmanager
def running(config: Config, *, further_paths: Sequence[str] = ()) -> Iterator[str]:
    """Start a daemon with this configuration, but apart; yield its address; stop it. Pods are not touched.

    It ends with this process, also when that is killed. For the main thread: SIGHUP and SIGTERM become
    SystemExit meanwhile.

    Args:
        further_paths: directories added to the end of its module path.

    Raises: Unavailable with its last words when it does not start, also because another one runs.
    """
    config.state.mkdir(parents=True, exist_ok=True, mode=0o711)
    with (
        _ended_by_signals(),
        _only_one(config.state),
        tempfile.TemporaryDirectory(prefix=_PREFIX, dir=config.state) as name,
    ):
        directory = Path(name)
        address = directory / "noded.sock"
        # A network that cannot be torn down must not hold anything up: it is reported as a debt.
        apart = dataclasses.replace(
            config,
            listen=address,
            listen_group="",
            network=dataclasses.replace(config.network, del_grace_seconds=0.0),
            metrics=dataclasses.replace(config.metrics, listen=""),
            streaming=dataclasses.replace(config.streaming, address="127.0.0.1", port=0),
        )
        (directory / "noded.toml").write_text(config_text.render(apart))
        process = _start(directory, further_paths)
        try:
            yield f"unix://{address}"
        finally:
            for number in _ENDS:  # a second one must not end the cleanup
                signal.signal(number, signal.SIG_IGN)
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGHUP and SIGTERM unwind this process, where they would end it without any cleanup."""
    before = {number: signal.getsignal(number) for number in _ENDS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # nohup(1)
            signal.signal(number, _exit)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    """Hold the directory against other commands, and remove what killed ones have left in it.

    Raises: Unavailable when another one holds it.
    """
    fd = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unavailable(f"another command of noded works on {state}: wait for its end") from None
        for left in state.glob(f"{_PREFIX}*"):
            files.remove_tree(left)
        yield
    finally:
        os.close(fd)


def _start(directory: Path, further_paths: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start it and wait until it says that it is ready (sd_notify(3))."""
    path = directory / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(path))
        log = directory / "noded.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *program.command("noded", further_paths=further_paths),
                    "serve", "--config", str(directory / "noded.toml"),
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, "NOTIFY_SOCKET": str(path)},
                # Ctrl-C and the hangup of a terminal are for this process, which then ends the daemon.
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),
            )  # fmt: skip
        ended = os.pidfd_open(process.pid)
        try:
            while True:
                readable, _, _ = select.select([ready.fileno(), ended], [], [], _READY_SECONDS)
                if ready.fileno() in readable and b"READY=1" in ready.recv(4096).split(b"\n"):
                    return process
                if ready.fileno() not in readable:
                    break
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            os.close(ended)
    process.kill()
    process.wait()
    last = log.read_text(errors="replace").splitlines()[-1:] or ["it said nothing"]
    raise Unavailable(f"a noded for it does not start: {last[0]}")
