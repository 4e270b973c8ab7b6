"""What is measured: noded, containerd, and any other CRI endpoint, behind one small interface."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc

from tests.bench.account import Account
from tests.bench.programs import installed, interpreter, runtime_program
from tests.support import cni
from tests.support.cri_client import Cri
from tests.support.daemon import REPOSITORY, NodedDaemon
from tests.support.processes import end

READY_SECONDS = 60.0
CONTAINERD = "containerd"
_CAP_SYS_RESOURCE = 24


class System(Protocol):
    """One CRI server. `handlers`: label of an OCI runtime -> RuntimeClass handler that gives it."""

    name: str
    address: str
    handlers: dict[str, str]
    helpers: frozenset[str]  # programs that belong to one pod, not to the daemon
    account: Account | None  # None: its CPU and memory are not known

    def start(self, meanwhile: Callable[[], None] | None = None) -> None:
        """Start the daemon and return when it is ready; `meanwhile` is called once the process runs."""

    def stop(self) -> None:
        """End the daemon; pods go on."""

    def pod_config(self, cri: Cri) -> Any:
        """A PodSandboxConfig with a fresh name."""

    def close(self) -> None:
        """Remove every trace."""


@dataclass(frozen=True)
class Subject:
    """A system with one of its handlers; what a column of the table shows."""

    system: System
    runtime: str  # runc, crun

    @property
    def label(self) -> str:
        return f"{self.system.name} {self.runtime}"

    @property
    def handler(self) -> str:
        return self.system.handlers[self.runtime]

    def cpu_seconds(self) -> float:
        return self.system.account.cpu_seconds() if self.system.account else float("nan")


class _Packaged(NodedDaemon):
    """Started as the packages' launcher does it: by the system's Python, without `site`'s work."""

    def command(self) -> list[str]:
        paths = [str(REPOSITORY), *(str(path) for path in (REPOSITORY / "plugins").iterdir())]
        paths += [path for path in sys.path if path.endswith("-packages")]
        code = f"import sys; sys.path += {paths}; from noded.__main__ import main; main()"
        return [interpreter(), "-IS", "-c", code, *super().command()[3:]]


class Noded:
    """The noded of this tree."""

    name = "noded"
    helpers = frozenset({"conmon", "catatonit"})

    def __init__(self, directory: Path, registry: str, sandbox_image: str) -> None:
        del sandbox_image  # it needs none
        self.account = Account(f"bench-{secrets.token_hex(4)}")
        self.daemon = _Packaged(
            directory,
            insecure=[registry],
            settings={"log_level": "info", "log_format": "json"},
        )
        self.daemon.cgroup_parent = self.account.pods
        self.daemon.prepare()
        self.address = self.daemon.address
        self.handlers = {name: name for name in installed()}

    def start(self, meanwhile: Callable[[], None] | None = None) -> None:
        with self.account.entered():
            self.daemon.start(meanwhile=meanwhile)

    def stop(self) -> None:
        self.daemon.stop()

    def pod_config(self, cri: Cri) -> Any:
        return self.daemon.pod_config(cri)

    def close(self) -> None:
        self.daemon.close()
        self.account.close()


class Containerd:
    """The containerd of this machine, with a private root and the CNI configuration that noded has."""

    name = CONTAINERD
    helpers = frozenset({"containerd-shim-runc-v2", "catatonit"})

    def __init__(self, directory: Path, registry: str, sandbox_image: str) -> None:
        del registry  # containerd speaks plain HTTP with 127.0.0.1 by itself
        token = secrets.token_hex(4)
        self.account = Account(f"bench-{token}")
        self._directory = directory / f"containerd-{token}"
        self._state = Path("/run") / f"cdt-{token}"  # short, for socket paths
        self._bridge = f"cdt{token}"
        self._socket = self._state / "containerd.sock"
        self.address = f"unix://{self._socket}"
        self.handlers = {name: name for name in installed()}
        self._process: subprocess.Popen[bytes] | None = None
        conf_dir = self._directory / "net.d"
        conf_dir.mkdir(parents=True)
        self._state.mkdir(mode=0o711)
        conflist = cni.bridge_conflist(
            f"net-{token}", self._bridge, cni.free_subnet(), self._directory / "ipam"
        )
        (conf_dir / "10-bench.conflist").write_text(json.dumps(conflist))
        runtimes = "\n".join(
            f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]\n'
            'runtime_type = "io.containerd.runc.v2"\n'
            f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]\n'
            f'BinaryName = "{runtime_program(name, self._directory)}"'
            for name in self.handlers
        )
        self._config = self._directory / "config.toml"
        self._config.write_text(
            f"""version = 2
root = "{self._directory}/root"
state = "{self._state}/state"
[grpc]
address = "{self._socket}"
[plugins."io.containerd.internal.v1.opt"]
path = "{self._directory}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox_image}"
restrict_oom_score_adj = {json.dumps(not _may_lower_oom_score())}
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni.plugin_path("bridge").parent}"
conf_dir = "{conf_dir}"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
{runtimes}
"""
        )

    def start(self, meanwhile: Callable[[], None] | None = None) -> None:
        with self.account.entered(), (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [CONTAINERD, "--config", str(self._config), "--log-level", "info"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            if meanwhile is not None:
                meanwhile()
        wait_answer(self.address, self.log_text)

    def log_text(self) -> str:
        return (self._directory / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)

    def pod_config(self, cri: Cri) -> Any:
        name = f"pod-{secrets.token_hex(4)}"
        logs = self._directory / "pod-logs" / name
        logs.mkdir(parents=True)
        return cri.pod_config(name, cgroup_parent=self.account.pods, log_directory=logs)

    def close(self) -> None:
        with suppress(grpc.RpcError), Cri(self.address) as cri:
            cri.remove_all_pods()
        self.stop()
        for pid in self.account.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for base in (self._directory, self._state):
            unmount_below(base)
        cni.delete_bridge(self._bridge)
        self.account.close()
        shutil.rmtree(self._state, ignore_errors=True)


class Endpoint:
    """A CRI server that somebody else runs: `NAME=unix:///path`. It is neither started nor stopped."""

    helpers: frozenset[str] = frozenset()
    account = None

    def __init__(self, argument: str, directory: Path) -> None:
        self.name, _, self.address = argument.partition("=")
        assert self.address, f"an endpoint is NAME=unix:///path, not {argument!r}"
        self.handlers = {"runc": ""}  # its default, whatever that is
        self._directory = directory / self.name

    def start(self, meanwhile: Callable[[], None] | None = None) -> None:
        wait_answer(self.address, lambda: "")

    def stop(self) -> None:
        raise AssertionError("a given endpoint is not restarted")

    def pod_config(self, cri: Cri) -> Any:
        name = f"pod-{secrets.token_hex(4)}"
        logs = self._directory / name
        logs.mkdir(parents=True)
        return cri.pod_config(name, log_directory=logs)

    def close(self) -> None:
        """Nothing: measures remove their own pods."""


def wait_answer(address: str, log: Any, seconds: float = READY_SECONDS) -> None:
    """Wait until a server answers Status with a ready network; it may not listen yet."""
    deadline = time.monotonic() + seconds
    with Cri(address) as cri:
        request = cri.pb.StatusRequest()
        while True:
            said = "NetworkReady is false"
            try:
                answer = cri.runtime.Status(request, timeout=seconds, wait_for_ready=True)
                if all(one.status for one in answer.status.conditions):
                    return
            except grpc.RpcError as error:
                said = str(error)
            assert time.monotonic() < deadline, f"{address} is not ready: {said}\n{log()}"
            time.sleep(0.01)


def _may_lower_oom_score() -> bool:
    """Root of a container often may not, and containerd then needs to be told."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("CapEff"))
    return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)


def unmount_below(base: Path) -> None:
    """Unmount everything at and below a directory."""
    points = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed(points):
        if point == str(base) or point.startswith(f"{base}/"):
            subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
