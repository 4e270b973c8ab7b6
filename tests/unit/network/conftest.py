"""CNI plugins as small shell scripts, and a record of how they were called."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from noded.config import NetworkConfig

ALL_VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
RESULT = '{"cniVersion":"1.0.0","ips":[{"address":"10.1.2.3/24"}]}'


@dataclass(frozen=True)
class Call:
    plugin: str
    command: str
    container_id: str
    netns: str
    ifname: str
    args: str
    path: str
    request: dict[str, Any]


class PluginLab:
    """A directory of plugin scripts. Each one records its call, then runs its body."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.conf = root / "net.d"
        self.log = root / "calls"
        self.bin.mkdir()
        self.conf.mkdir()

    @property
    def config(self) -> NetworkConfig:
        return NetworkConfig(conf_dir=self.conf, bin_dirs=(self.bin,))

    def plugin(self, type_: str, body: str = "", versions: tuple[str, ...] = ALL_VERSIONS) -> Path:
        """Write a plugin; `body` runs for every command but VERSION, with the request in $REQUEST."""
        answer = json.dumps({"cniVersion": "1.0.0", "supportedVersions": versions})
        fields = "$CNI_COMMAND|$CNI_CONTAINERID|$CNI_NETNS|$CNI_IFNAME|$CNI_ARGS|$CNI_PATH"
        path = self.bin / type_
        path.write_text(
            "#!/bin/sh\n"
            "REQUEST=$(cat)\n"
            f"printf '%s\\n' \"{type_}|{fields}|$REQUEST\" >> {self.log}\n"
            f"if [ \"$CNI_COMMAND\" = VERSION ]; then echo '{answer}'; exit 0; fi\n"
            f"{body}\n"
        )
        path.chmod(0o755)
        return path

    def result(self, type_: str, result: str = RESULT) -> Path:
        """Write a plugin that answers ADD with this result and succeeds at all else."""
        return self.plugin(type_, f"if [ \"$CNI_COMMAND\" = ADD ]; then echo '{result}'; fi")

    def write(self, name: str, value: object) -> Path:
        path = self.conf / name
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    def network(self, *plugins: str | dict[str, Any], file: str = "10-net.conflist", **keys: Any) -> None:
        """Write a configuration list of these plugins."""
        entries = [{"type": item} if isinstance(item, str) else item for item in plugins]
        self.write(file, {"cniVersion": "1.0.0", "name": "podnet", "plugins": entries, **keys})

    def calls(self, *commands: str) -> list[Call]:
        """The calls so far, oldest first; only these commands, or all but VERSION."""
        calls = []
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            *fields, request = line.split("|", 7)
            calls.append(Call(*fields, request=json.loads(request)))
        return [
            call for call in calls if (call.command in commands if commands else call.command != "VERSION")
        ]


@pytest.fixture
def lab(tmp_path: Path) -> PluginLab:
    return PluginLab(tmp_path)
