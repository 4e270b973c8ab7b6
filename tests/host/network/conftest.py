"""A node of its own: a network namespace in which the machine's real CNI plugins run.

The plugins are reached through wrappers that enter the node's namespace first, so bridges, veths,
addresses and firewall rules of a test never touch those of the machine.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noded.config import NetworkConfig
from noded.model.pod import PodConfig, SandboxKey

REAL_PLUGINS = Path("/usr/lib/cni")
PLUGINS = ("bridge", "host-local", "portmap", "bandwidth", "firewall", "tuning", "ptp", "loopback")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Node:
    """A network namespace that plays the node, and the pods' namespaces made for it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = f"ndtest-{secrets.token_hex(4)}"
        self.ipam = root / "ipam"
        self.conf = root / "net.d"
        self.bin = root / "bin"
        self.conf.mkdir()
        self.bin.mkdir()
        self._namespaces = [self.name]
        run("ip", "netns", "add", self.name)
        self.run("ip", "link", "set", "lo", "up")
        for plugin in PLUGINS:
            self.wrap(plugin)

    @property
    def config(self) -> NetworkConfig:
        return NetworkConfig(conf_dir=self.conf, bin_dirs=(self.bin,))

    def wrap(self, plugin: str, prelude: str = "") -> None:
        path = self.bin / plugin
        path.write_text(
            f"#!/bin/sh\n{prelude}\nexec nsenter --net=/run/netns/{self.name} {REAL_PLUGINS}/{plugin}\n"
        )
        path.chmod(0o755)

    def run(self, *command: str) -> str:
        """Run a program on the node."""
        return run("nsenter", f"--net=/run/netns/{self.name}", *command)

    def namespace(self) -> str:
        """Make a pod's network namespace; return its path."""
        name = f"{self.name}-{len(self._namespaces)}"
        run("ip", "netns", "add", name)
        self._namespaces.append(name)
        return f"/run/netns/{name}"

    def unmount(self, netns: str) -> None:
        run("ip", "netns", "delete", Path(netns).name)
        self._namespaces.remove(Path(netns).name)

    def network(self, *chained: dict[str, Any], version: str = "1.0.0", subnet: str = "10.77.0.0/24") -> None:
        bridge = {
            "type": "bridge",
            "bridge": "ndbr0",
            "isGateway": True,
            "ipMasq": True,
            "hairpinMode": True,
            "ipam": {
                "type": "host-local",
                "dataDir": str(self.ipam),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        document = {"cniVersion": version, "name": "podnet", "plugins": [bridge, *chained]}
        (self.conf / "10-net.conflist").write_text(json.dumps(document))

    def leases(self) -> list[str]:
        """Addresses that host-local holds."""
        folder = self.ipam / "podnet"
        return sorted(name for name in os.listdir(folder) if name[0].isdigit()) if folder.exists() else []

    def traces(self) -> dict[str, str]:
        """What plugins leave on a node: links, firewall rules, queues; without counters."""
        rules = self.run("nft", "--stateless", "list", "ruleset")
        return {
            "links": "\n".join(
                sorted(line.split()[0] for line in self.run("ip", "-br", "link").splitlines())
            ),
            "rules": "\n".join(line for line in rules.splitlines() if "ndbr0" in line or "10.77." in line),
        }

    def close(self) -> None:
        for name in self._namespaces:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    if os.geteuid() != 0:
        pytest.skip("needs root to make network namespaces")
    if not REAL_PLUGINS.is_dir() or shutil.which("nsenter") is None:
        pytest.skip(f"needs the CNI plugins in {REAL_PLUGINS} (containernetworking-plugins) and nsenter")
    node = Node(tmp_path)
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def pod() -> PodConfig:
    return PodConfig(SandboxKey("ns", "web", "uid", 0))
