"""A real `noded serve` with directories, configuration and a pod network of its own.

    with NodedDaemon(tmp_path) as daemon, daemon.client() as cri:
        ...

Everything with a global name carries a random token, so that many can run at once.
"""

from __future__ import annotations

import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from tests.support import cni, toml
from tests.support.cri_client import Cri

READY_SECONDS = 30.0
STOP_SECONDS = 40.0
REPOSITORY = Path(__file__).resolve().parents[2]


class NodedDaemon:
    """One daemon, started on entry, on exit stopped with all that it made on the host.

    Args:
        directory: for everything that may have a long path, usually tmp_path.
        settings: configuration that is merged over the test's default, by table.
        mirrors: prefix of references -> `HOST:PORT/...` to pull from instead, without TLS.
        insecure: registry hosts to speak plain HTTP with, beside those of `mirrors`.
        plugins: CNI plugins chained after bridge and portmap.
        environment: added to that of the daemon.
    """

    module = "noded"  # what `python -m` runs; a subclass may put its own main before noded's

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, Any] | None = None,
        mirrors: Mapping[str, str] | None = None,
        insecure: Sequence[str] = (),
        plugins: Sequence[dict[str, Any]] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.token = secrets.token_hex(4)
        self.directory = directory / f"noded-{self.token}"
        self.root = self.directory / "root"
        # Socket paths are limited to 108 bytes, and conmon's have a container id in them.
        self.state = Path("/run") / f"ndt-{self.token}"
        self.socket = self.state / "noded.sock"
        self.nri_socket = self.state / "nri.sock"
        self.config = self.directory / "noded.toml"
        self.log = self.directory / "noded.log"
        self.cni_conf_dir = self.directory / "net.d"
        self.cni_bin_dir = self.directory / "cni-bin"  # first in bin_dirs, empty: for WatchedPlugin
        self.ipam = self.directory / "ipam"
        self.pod_logs = self.directory / "pod-logs"
        self.bridge = f"ndt{self.token}"
        self.network = f"net-{self.token}"
        self.cgroup_parent = f"/ndt-{self.token}"
        self.settings: dict[str, Any] = _merged(
            {
                "root": self.root,
                "state": self.state,
                "listen": self.socket,
                "log_level": "debug",
                "log_format": "console",
                "cgroup_driver": "cgroupfs",
                "network": {
                    "conf_dir": self.cni_conf_dir,
                    "bin_dirs": [self.cni_bin_dir, *cni.BIN_DIRECTORIES],
                },
                "images": {"registries_conf": self.directory / "registries.conf"},
                "nri": {
                    "socket": self.nri_socket,
                    "plugin_path": self.directory / "nri-plugins",
                    "plugin_config_path": self.directory / "nri-conf.d",
                },
            },
            settings or {},
        )
        self._registries = _registries_conf(mirrors or {}, insecure)
        self._plugins = plugins
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    # process

    @property
    def address(self) -> str:
        return f"unix://{self.socket}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the daemon was never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def prepare(self) -> None:
        """Make directories and files, without starting anything."""
        for path in (
            self.directory,
            self.root,
            self.cni_conf_dir,
            self.cni_bin_dir,
            self.pod_logs,
            self.state,
        ):
            path.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.write_config()
        (self.directory / "registries.conf").write_text(self._registries)
        conflist = cni.bridge_conflist(self.network, self.bridge, cni.free_subnet(), self.ipam, self._plugins)
        (self.cni_conf_dir / "10-test.conflist").write_text(json.dumps(conflist))

    def write_config(self) -> None:
        """Write `settings` into the configuration file (again)."""
        self.config.write_text(toml.dumps(self.settings))

    def command(self) -> list[str]:
        """What `start` runs."""
        return [sys.executable, "-m", self.module, "serve", "--config", str(self.config)]

    @property
    def passed(self) -> tuple[int, ...]:
        """Descriptors that the daemon inherits."""
        return ()

    def start(self, seconds: float = READY_SECONDS, meanwhile: Callable[[], None] | None = None) -> None:
        """Start the daemon and wait until it says READY=1; fails with its log otherwise.

        Args:
            meanwhile: called once the process runs.
        """
        assert not self.running
        notify = self.state / "notify.sock"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, self.log.open("ab") as log:
            ready.bind(str(notify))
            self._process = subprocess.Popen(
                self.command(),
                cwd=REPOSITORY,
                pass_fds=self.passed,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(notify), "NO_COLOR": "1", **self._environment},
                start_new_session=True,
            )
            try:
                if meanwhile is not None:
                    meanwhile()
                self._wait_ready(ready, seconds)
            except BaseException:
                self.kill()
                raise
            finally:
                notify.unlink(missing_ok=True)

    def _wait_ready(self, ready: socket.socket, seconds: float) -> None:
        assert self._process is not None
        ended = os.pidfd_open(self._process.pid)
        deadline = time.monotonic() + seconds
        try:
            while True:
                left = max(0.0, deadline - time.monotonic())
                readable, _, _ = select.select([ready, ended], [], [], left)
                if ready in readable:
                    if b"READY=1" in ready.recv(4096).split(b"\n"):
                        return
                elif ended in readable:
                    raise AssertionError(
                        f"noded ended with status {self._process.wait()}:\n{self.log_text()}"
                    )
                else:
                    raise AssertionError(f"noded is not ready after {seconds} s:\n{self.log_text()}")
        finally:
            os.close(ended)

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """SIGTERM; pods go on. Returns the exit status; fails when it takes too long."""
        assert self._process is not None
        self._process.terminate()
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"noded did not stop within {seconds} s of SIGTERM:\n{self.log_text()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL. Idempotent."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def reload(self) -> None:
        """SIGHUP."""
        os.kill(self.pid, signal.SIGHUP)

    def restart(self, *, hard: bool = False) -> None:
        """Stop (`hard`: SIGKILL) and start with the same configuration."""
        if hard:
            self.kill()
        else:
            assert self.stop() == 0
        self.start()

    def client(self) -> Cri:
        """A new connection of the independent client."""
        return Cri(self.address)

    def pod_config(self, cri: Cri, name: str = "", **options: Any) -> Any:
        """A PodSandboxConfig with this daemon's cgroup parent and a log directory of its own."""
        name = name or f"pod-{secrets.token_hex(4)}"
        logs = self.pod_logs / f"{name}-{options.get('attempt', 0)}"
        logs.mkdir(exist_ok=True)
        options.setdefault("cgroup_parent", self.cgroup_parent)
        options.setdefault("log_directory", logs)
        return cri.pod_config(name, **options)

    def clear(self, cri: Cri) -> None:
        """Remove all pods and their logs, for the next test."""
        cri.remove_all_pods()
        for logs in self.pod_logs.iterdir():
            shutil.rmtree(logs)

    def log_text(self, lines: int = 200) -> str:
        """The end of the daemon's log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    # life of the test

    def __enter__(self) -> NodedDaemon:
        self.prepare()
        try:
            self.start()
        except BaseException:
            self._remove_traces()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            print(f"\n--- log of noded {self.token} ---\n{self.log_text()}", file=sys.stderr)
        self.close()

    def close(self) -> None:
        """Remove the pods through the daemon, stop it, and remove what is left by force."""
        try:
            if not self.running and self._has_pods():
                with suppress(AssertionError):
                    self.start()
            if self.running:
                with suppress(grpc.RpcError), self.client() as cri:
                    cri.remove_all_pods()
                self.stop()
        finally:
            self._remove_traces()

    def _has_pods(self) -> bool:
        pods = self.state / "pods"
        return pods.is_dir() and any(pods.iterdir())

    def _remove_traces(self) -> None:
        if self._process is not None:
            self.kill()
        pods = self.state / "pods"
        sandboxes = [path.name for path in pods.iterdir()] if pods.is_dir() else []
        for pid in self._leftover_pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for base in (self.directory, self.state):
            _unmount_below(base)
        for sandbox in sandboxes:
            pin = Path("/run/netns") / f"noded-{sandbox}"
            subprocess.run(["umount", "--lazy", pin], capture_output=True, check=False)
            pin.unlink(missing_ok=True)
        cni.delete_bridge(self.bridge)
        self._remove_cgroups()
        shutil.rmtree(self.state, ignore_errors=True)

    def _leftover_pids(self) -> set[int]:
        """Processes in this daemon's cgroups, and monitors that name its directories."""
        pids: set[int] = set()
        for directory in self._cgroup_directories():
            for procs in directory.rglob("cgroup.procs"):
                with suppress(OSError):
                    pids |= {int(pid) for pid in procs.read_text().split()}
        needle = os.fsencode(self.state)
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if needle in path.read_bytes():
                    pids.add(int(path.parent.name))
        return pids - {os.getpid()}

    def _cgroup_directories(self) -> list[Path]:
        name = self.cgroup_parent.strip("/")
        base = Path("/sys/fs/cgroup")
        return [path for path in (base / name, *base.glob(f"*/{name}")) if path.is_dir()]

    def _remove_cgroups(self) -> None:
        # The last members may still be dying: the kernel lets go of them without telling anybody.
        deadline = time.monotonic() + 5
        while directories := self._cgroup_directories():
            for top in directories:
                for path in sorted((top, *(item for item in top.rglob("*") if item.is_dir())), reverse=True):
                    with suppress(OSError):
                        path.rmdir()
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)


def _unmount_below(base: Path) -> None:
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point.startswith(f"{base}/"):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = _merged(result[key], value) if both else value
    return result


def _registries_conf(mirrors: Mapping[str, str], insecure: Sequence[str]) -> str:
    lines = []
    for prefix, location in mirrors.items():
        lines += [
            "[[registry]]",
            f"prefix = {json.dumps(prefix)}",
            f"location = {json.dumps(prefix)}",
            "[[registry.mirror]]",
            f"location = {json.dumps(location)}",
            "insecure = true",
        ]
    for host in insecure:
        lines += ["[[registry]]", f"location = {json.dumps(host)}", "insecure = true"]
    return "\n".join(lines) + "\n"
