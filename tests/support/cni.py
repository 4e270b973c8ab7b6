"""Pod networks for tests: configuration, unique names, and plugins that can be watched and held."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BIN_DIRECTORIES = (Path("/opt/cni/bin"), Path("/usr/lib/cni"), Path("/usr/libexec/cni"))


def plugin_path(name: str) -> Path:
    """The real plugin of this host. Raises AssertionError when it is not installed."""
    for directory in BIN_DIRECTORIES:
        if (directory / name).exists():
            return directory / name
    raise AssertionError(f"CNI plugin {name} is not installed: run `make packages` as root")


def free_subnet() -> ipaddress.IPv4Network:
    """A random /24 of 10.128.0.0/9 that overlaps no route of this network namespace."""
    routes = json.loads(
        subprocess.run(["ip", "-j", "-4", "route"], capture_output=True, check=True).stdout or b"[]"
    )
    used = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    while True:
        candidate = ipaddress.IPv4Network((0x0A800000 | random.SystemRandom().randrange(1 << 15) << 8, 24))
        if not any(candidate.overlaps(other) for other in used):
            return candidate


def bridge_conflist(
    name: str, bridge: str, subnet: ipaddress.IPv4Network, ipam: Path, extra: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """bridge + host-local + portmap, as clusters use them; all state in `ipam`."""
    main = {
        "type": "bridge",
        "bridge": bridge,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(ipam),
            "ranges": [[{"subnet": str(subnet)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": name, "plugins": [main, portmap, *extra]}


def delete_bridge(bridge: str) -> None:
    """Delete a bridge. Idempotent."""
    subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


class WatchedPlugin:
    """A wrapper that records each run of a CNI plugin and can hold or fail it.

    It is put into a directory that comes first in `bin_dirs`, under the name of the real plugin.
    """

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._record = directory / f"{name}.runs"
        self._gates = {command: directory / f"{name}.{command}.gate" for command in ("ADD", "DEL", "CHECK")}
        self._failures = {command: directory / f"{name}.{command}.fail" for command in self._gates}
        self._arrived = directory / f"{name}.arrived"
        os.mkfifo(self._arrived)
        # Opened for reading and writing, so that neither side waits for the other to open.
        self._arrivals = os.open(self._arrived, os.O_RDWR | os.O_CLOEXEC)
        self._open = [self._arrivals]
        script = f"""#!/bin/sh
base={shlex.quote(str(directory / name))}
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"$base.runs"
if [ -e "$base.$CNI_COMMAND.fail" ]; then
    cat >/dev/null
    echo '{{"cniVersion": "1.0.0", "code": 11, "msg": "told to fail by the test"}}'
    exit 1
fi
if [ -p "$base.$CNI_COMMAND.gate" ]; then
    echo "$CNI_COMMAND" >"$base.arrived"
    read -r _ <"$base.$CNI_COMMAND.gate"
fi
exec {shlex.quote(str(plugin_path(name)))}
"""
        path = directory / name
        path.write_text(script)
        path.chmod(0o755)

    def runs(self, command: str) -> list[str]:
        """Container ids of the runs with this CNI_COMMAND so far, in order."""
        if not self._record.exists():
            return []
        lines = [line.split() for line in self._record.read_text().splitlines()]
        return [line[1] for line in lines if line[0] == command]

    def hold(self, command: str) -> None:
        """Make every following run with this command wait for `release`."""
        os.mkfifo(self._gates[command])

    def wait_held(self) -> str:
        """Wait until a run is held; return its command."""
        return os.read(self._arrivals, 16).decode().strip()

    def release(self, command: str) -> None:
        """Let one held run go on, and hold no further ones."""
        # Open for reading too: the line must wait in the fifo for a run that has not opened it yet.
        gate = os.open(self._gates[command], os.O_RDWR | os.O_CLOEXEC)
        self._open.append(gate)
        os.write(gate, b"go\n")
        self._gates[command].unlink()

    def fail(self, command: str, *, on: bool = True) -> None:
        """Make every following run with this command fail, or work again."""
        if on:
            self._failures[command].touch()
        else:
            self._failures[command].unlink(missing_ok=True)

    def close(self) -> None:
        """Close the fifos. Idempotent."""
        while self._open:
            os.close(self._open.pop())
