"""The kubelet of Kubernetes itself, without an API server: static pods from a directory.

It is not built here: put a `kubelet` of dl.k8s.io into PATH, or its path into KUBELET.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import websocket

from tests.support.daemon import NodedDaemon
from tests.support.ports import free_port

NODE = "node"
_END_SECONDS = 20.0


def program() -> str | None:
    """Path of a kubelet, None when there is none here."""
    return os.environ.get("KUBELET") or shutil.which("kubelet")


class RealKubelet:
    """One kubelet process with everything of its own below one directory.

    Args:
        settings: merged over the KubeletConfiguration.
    """

    def __init__(
        self, directory: Path, daemon: NodedDaemon, settings: Mapping[str, Any] | None = None
    ) -> None:
        found = program()
        assert found is not None
        self._program = found
        self.root = directory / "kubelet"
        self.manifests = directory / "manifests"
        self.pod_logs = directory / "pods"
        self.log = directory / "kubelet.log"
        self._config = directory / "kubelet.json"
        for path in (self.root, self.manifests, self.pod_logs):
            path.mkdir(parents=True)
        self.port, self._read_only_port = free_port(), free_port()
        self._settings: dict[str, Any] = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "port": self.port,
            "readOnlyPort": self._read_only_port,
            "healthzPort": 0,
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": daemon.address,
            "staticPodPath": str(self.manifests),
            "podLogsDir": str(self.pod_logs),
            "fileCheckFrequency": "1s",
            "syncFrequency": "2s",
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": True,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "1Mi"},
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; static pods follow by themselves."""
        self._config.write_text(json.dumps(self._settings, indent=1))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    f"--config={self._config}",
                    f"--root-dir={self.root}",
                    f"--cert-dir={self.root}/pki",
                    f"--hostname-override={NODE}",
                    "--node-ip=127.0.0.1",
                    "--v=2",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End the process; its pods go on, as on a node. Idempotent."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def put(self, pod: Mapping[str, Any]) -> None:
        """Make it a static pod, or change it."""
        path = self.manifests / f"{pod['metadata']['name']}.json"
        scratch = path.with_name(f".{path.name}")  # which kubelet does not look at
        scratch.write_text(json.dumps(pod))
        scratch.rename(path)

    def withdraw(self, name: str) -> None:
        """Remove a static pod."""
        (self.manifests / f"{name}.json").unlink()

    def pods(self) -> dict[str, Any]:
        """What kubelet itself says of its pods, by the name of their manifest."""
        listed = json.loads(self.get("/pods"))
        return {one["metadata"]["name"].removesuffix(f"-{NODE}"): one for one in listed.get("items") or ()}

    def get(self, path: str) -> str:
        """Ask its read-only port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._read_only_port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def open_stream(self, path: str, protocol: str, **query: Any) -> websocket.WebSocket:
        """A WebSocket as the API server opens it to kubelet, which passes it on to the runtime."""
        url = f"wss://127.0.0.1:{self.port}{path}?{urlencode(query, doseq=True)}"
        return websocket.create_connection(
            url, subprotocols=[protocol], timeout=60, sslopt={"cert_reqs": ssl.CERT_NONE}
        )

    def log_text(self, lines: int = 80) -> str:
        """The end of its log."""
        return (
            "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:]) if self.log.exists() else ""
        )


@contextmanager
def running(
    directory: Path, daemon: NodedDaemon, settings: Mapping[str, Any] | None = None
) -> Iterator[RealKubelet]:
    """A kubelet that is stopped at the end; its log is shown when the test fails."""
    kubelet = RealKubelet(directory, daemon, settings)
    kubelet.start()
    try:
        yield kubelet
    except BaseException:
        print(f"--- log of kubelet ---\n{kubelet.log_text()}")
        raise
    finally:
        kubelet.stop()


def within(seconds: float, holds: Any) -> Any:
    """The first true value of `holds`, asked ten times a second: kubelet tells nobody what it does."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := holds():
                return value
        except OSError:
            pass
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)
