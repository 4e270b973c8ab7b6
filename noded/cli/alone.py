"""A daemon over this node's state for one command, on a socket that no kubelet knows."""

from __future__ import annotations

import dataclasses
import os
import select
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from noded import settings
from noded.cli import program
from noded.config import Config
from noded.errors import Unavailable

_READY_SECONDS = 120.0
_STOP_SECONDS = 30.0


@contextmanager
def running(config: Config, *, further_paths: Sequence[str] = ()) -> Iterator[str]:
    """Start a daemon with this configuration, but apart; yield its address; stop it. Pods are not touched.

    Args:
        further_paths: directories added to the end of its module path.

    Raises: Unavailable with its last words when it does not start, also because another one runs.
    """
    config.state.mkdir(parents=True, exist_ok=True, mode=0o711)
    with tempfile.TemporaryDirectory(prefix="alone-", dir=config.state) as name:
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
        (directory / "noded.toml").write_text(settings.render(apart))
        process = _start(directory, further_paths)
        try:
            yield f"unix://{address}"
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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
