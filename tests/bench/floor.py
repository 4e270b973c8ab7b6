"""The floor: what a pod costs when nothing but the programs themselves run, one after another.

conmon, the OCI runtime and the CNI plugins are run as a daemon would run them, with the spec that
noded wrote for the same container and the same conflist. No records, no locks, no answers.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.account import Account
from tests.bench.programs import runtime_program
from tests.bench.systems import unmount_below
from tests.support import cni
from tests.support.images import busybox_layer


@dataclass(frozen=True)
class FloorPod:
    """One container with a network, without a daemon."""

    id: str
    netns: Path
    bundle: Path
    results: list[dict[str, Any]]
    conmon: subprocess.Popen[bytes]


class Floor:
    """Starts and removes single containers with one runtime.

    Args:
        spec: config.json of a container as noded wrote it.
    """

    def __init__(self, directory: Path, runtime: str, spec: dict[str, Any]) -> None:
        token = secrets.token_hex(4)
        self.label = f"floor {runtime}"
        self.account = Account(f"bench-{token}")
        self._directory = directory / f"floor-{token}"
        self._directory.mkdir()
        self.program = runtime_program(runtime, self._directory)
        self._conmon = str(shutil.which("conmon"))
        self.root = self._directory / "runtime"
        self._exits = self._directory / "exits"
        self._rootfs = self._directory / "rootfs"
        self._exits.mkdir(parents=True)
        self._rootfs.mkdir()
        subprocess.run(["tar", "-xf", "-"], cwd=self._rootfs, input=busybox_layer(), check=True)
        self._spec = spec
        self._bridge = f"flr{token}"
        self._conflist = cni.bridge_conflist(
            f"net-{token}", self._bridge, cni.free_subnet(), self._directory / "ipam"
        )

    def cpu_seconds(self) -> float:
        return self.account.cpu_seconds()

    def prepare(self) -> tuple[str, Path, Path]:
        """Everything that is not the programs' work: a namespace, a bundle."""
        name = f"floor-{secrets.token_hex(8)}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        netns = Path("/run/netns") / name
        bundle = self._directory / name
        bundle.mkdir()
        spec = json.loads(json.dumps(self._spec))
        spec["root"]["path"] = str(self._rootfs)
        spec["mounts"] = [
            one
            for one in spec["mounts"]
            if one.get("type") != "bind" and "bind" not in one.get("options", [])
        ]
        spec["linux"]["cgroupsPath"] = f"{self.account.pods}/{name}"
        spec["linux"]["namespaces"] = [
            {"type": one["type"], **({"path": str(netns)} if one["type"] == "network" else {})}
            for one in spec["linux"]["namespaces"]
        ]
        (bundle / "config.json").write_text(json.dumps(spec))
        return name, netns, bundle

    def start(self, prepared: tuple[str, Path, Path]) -> FloorPod:
        """CNI ADD, conmon with the runtime's create, the runtime's start."""
        name, netns, bundle = prepared
        with self.account.entered():
            results = self._cni("ADD", name, netns, [])
            monitor = self._create(name, bundle)
            self.run("start", name)
        return FloorPod(name, netns, bundle, results, monitor)

    def _create(self, name: str, bundle: Path) -> subprocess.Popen[bytes]:
        read, write = os.pipe()
        try:
            monitor = subprocess.Popen(
                [
                    self._conmon, "--sync", "--cid", name, "--cuuid", name, "--name", name,
                    "--bundle", str(bundle), "--runtime", self.program,
                    "--runtime-arg", "--root", "--runtime-arg", str(self.root),
                    "--container-pidfile", str(bundle / "pid"), "--exit-dir", str(self._exits),
                    "--log-path", f"k8s-file:{bundle / 'log'}", "--full-attach",
                ],
                cwd=bundle,
                env={"PATH": os.environ["PATH"], "_OCI_SYNCPIPE": str(write), "TMPDIR": str(bundle)},
                pass_fds=[write],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=(bundle / "stderr").open("wb"),
                start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(write)
        with os.fdopen(read, "rb") as reply:
            line = reply.readline()
        answer = json.loads(line or b"{}")
        assert answer.get("data", answer.get("pid", -1)) > 0, (line, (bundle / "stderr").read_text())
        return monitor

    def exec_true(self, pod: FloorPod) -> None:
        """The runtime's exec of `true`."""
        process = self._spec["process"] | {"args": ["true"], "terminal": False}
        path = pod.bundle / "process.json"
        path.write_text(json.dumps(process))
        with self.account.entered():
            self.run("exec", "--process", str(path), pod.id)

    def stop(self, pod: FloorPod) -> None:
        """Kill, wait for the monitor, the runtime's delete, CNI DEL."""
        with self.account.entered():
            self.run("kill", pod.id, "KILL")
            pod.conmon.wait(30)
            self.run("delete", pod.id)
            self._cni("DEL", pod.id, pod.netns, pod.results)
        shutil.rmtree(pod.bundle)
        subprocess.run(["ip", "netns", "delete", pod.netns.name], check=True)

    def run(self, *arguments: str) -> None:
        """One runtime command that must succeed."""
        command = [self.program, "--root", str(self.root), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        assert done.returncode == 0, (command, done.stderr)

    def _cni(self, verb: str, name: str, netns: Path, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        plugins = self._conflist["plugins"]
        environment = {
            "PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_CONTAINERID": name, "CNI_NETNS": str(netns),
            "CNI_IFNAME": "eth0", "CNI_PATH": str(cni.plugin_path("bridge").parent),
        }  # fmt: skip
        made: list[dict[str, Any]] = []
        for plugin in plugins if verb == "ADD" else reversed(plugins):
            request = {
                **{key: value for key, value in plugin.items() if key != "capabilities"},
                "cniVersion": self._conflist["cniVersion"],
                "name": self._conflist["name"],
            }
            previous = made or results
            if previous:
                request["prevResult"] = previous[-1]
            done = subprocess.run(
                [str(cni.plugin_path(plugin["type"]))],
                input=json.dumps(request).encode(),
                env=environment,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, (plugin["type"], done.stdout, done.stderr)
            if verb == "ADD":
                made.append(json.loads(done.stdout))
        return made

    def close(self) -> None:
        """Remove what is left."""
        for pid in self.account.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        for pin in Path("/run/netns").glob("floor-*"):
            subprocess.run(["ip", "netns", "delete", pin.name], check=False, capture_output=True)
        unmount_below(self._directory)
        cni.delete_bridge(self._bridge)
        self.account.close()
