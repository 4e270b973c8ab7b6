"""A noded of the demo's own: its directories, its configuration, its process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from ipaddress import IPv4Network
from pathlib import Path

from noded.cli import program
from noded.cli.demo import network
from noded.errors import DeadlineExceeded, Internal
from noded.host.lock import Lock, lock
from noded.host.mountinfo import parse_mountinfo, read_mountinfo

_READY_SECONDS = 30.0
_STOP_SECONDS = 30.0
_UNSUITABLE = {"overlay", "nfs", "nfs4", "9p", "virtiofs"}  # overlayfs cannot put its upper layer there


def base_directory() -> Path:
    """Where the demo keeps everything: on a disk, unless that cannot hold overlayfs' upper layers."""
    best = ("/", "")
    for entry in parse_mountinfo(read_mountinfo()):
        point = entry.mount_point
        inside = point == "/" or point == "/var/tmp" or "/var/tmp".startswith(f"{point}/")
        if inside and len(point) >= len(best[0]):
            best = (point, entry.fstype)
    return Path("/run") if best[1] in _UNSUITABLE else Path("/var/tmp")


class Node:
    """Directories and process of one demo run. `name` is in the name of all that it makes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bridge = name.replace("noded-", "nd-")
        self.directory = base_directory() / name
        self.state = Path("/run") / f"{name}-state"
        self.socket = self.state / "noded.sock"
        self.log = self.directory / "noded.log"
        self.image = self.directory / "image"
        self.pod_logs = self.directory / "logs"
        self._root = self.directory / "root"
        self._config = self.directory / "noded.toml"
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def claim(self) -> Lock:
        """Make the directory and a lock in it: what is not locked belongs to a demo that was killed."""
        self.directory.mkdir(mode=0o711, exist_ok=True)
        return lock(self.directory / "demo.lock")

    def prepare(self, runtime: str, subnet: IPv4Network, **more: float) -> None:
        """Make the directories and write the configuration, noded's and the pod network's.

        Args:
            more: further keys of noded's.
        """
        self.state.mkdir(mode=0o711)
        for directory in (self._root, self.image, self.pod_logs, self.directory / "cni"):
            directory.mkdir()
        settings = {
            "root": str(self._root),
            "state": str(self.state),
            "listen": str(self.socket),
            "log_format": "console",
            "default_runtime": runtime,
            **more,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in settings.items()]
        lines += ["[network]", f"conf_dir = {json.dumps(str(self.directory / 'cni'))}"]
        lines += ["[nri]", "enable = false"]
        lines += ["[images]", f"registries_conf = {json.dumps(str(self.directory / 'registries.conf'))}"]
        self._config.write_text("\n".join(lines) + "\n")
        (self.directory / "registries.conf").write_text("")
        conflist = network.conflist(self.bridge, subnet, self.directory / "ipam")
        (self.directory / "cni" / "10-demo.conflist").write_text(conflist)

    async def start(self) -> None:
        """Start the daemon and wait until it says that it is ready (sd_notify(3)).

        Raises: Internal when it ends instead, DeadlineExceeded; `log_end` says more.
        """
        notify = self.state / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as ready:
            ready.bind(str(notify))
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *program.command("noded"), "serve", "--config", str(self._config),
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "NOTIFY_SOCKET": str(notify)},
                    start_new_session=True,  # Ctrl-C is the demo's: the daemon is stopped in order
                )  # fmt: skip
            announced = asyncio.create_task(_announced(ready))
            ended = asyncio.create_task(self._process.wait())
            try:
                async with asyncio.timeout(_READY_SECONDS):
                    await asyncio.wait((announced, ended), return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                raise DeadlineExceeded(f"noded was not ready within {_READY_SECONDS:.0f} s") from None
            finally:
                announced.cancel()
                ended.cancel()
            if not self.running:
                raise Internal(f"noded ended with status {self._process.returncode} instead of serving")

    async def stop(self) -> None:
        """Stop the daemon with SIGTERM, with SIGKILL when that takes too long. Idempotent."""
        if self._process is None or not self.running:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(_STOP_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    def log_end(self, lines: int = 20) -> str:
        """The last lines of the daemon's log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"


async def _announced(ready: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while b"READY=1" not in (await loop.sock_recv(ready, 4096)).split(b"\n"):
        pass
