"""`noded check` on a node with planted faults finds all of them, each with its cure."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noded.cli.program import command
from tests.crash.small_disk import SmallDisk
from tests.support import cni, toml

pytestmark = pytest.mark.root

REPOSITORY = Path(__file__).resolve().parents[3]
# A network namespace of its own, where nobody has set forwarding; few open files.
SHELL = 'echo 0 >/proc/sys/net/ipv4/ip_forward; ulimit -n 1024; exec "$@"'


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 32 MiB with hardly any room."""
    target = tmp_path / "disk"
    disk = SmallDisk(tmp_path / "disk.img", target, 32)
    try:
        disk.fill()
        # Room for the directories of the trial mount: what is full is judged, not what is broken.
        os.truncate(target / "filler", (target / "filler").stat().st_size - (2 << 20))
        yield target
    finally:
        disk.close()


def distribution(directory: Path, name: str, point: str, source: str) -> None:
    """An installed distribution with one plugin."""
    module = name.replace("-", "_")
    info = directory / f"{module}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[noded]\n{point} = {module}\n")
    (directory / f"{module}.py").write_text(source)


def check(config: Path, *arguments: str, modules: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    """Run it where forwarding is off and files are few; return exit status and document."""
    noded = [*command("noded", further_paths=modules), "check", "--json", "--config", str(config)]
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", SHELL, "sh", *noded, *arguments],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def wrong(document: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {each["check"]: each for each in document["results"] if each["verdict"] != "ok"}


def test_ten_planted_faults_are_found_each_with_its_cure(tmp_path, small_disk):
    net, sock, more = tmp_path / "net.d", tmp_path / "sock", tmp_path / "more"
    net.mkdir()
    sock.mkdir()
    sock.chmod(0o777)
    chain = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{"type": "no-such-plugin"}, {"type": "portmap", "capabilities": {"portMappings": True}}],
    }
    (net / "10-pods.conflist").write_text(json.dumps(chain))
    (net / "20-broken.conflist").write_text('{"cniVersion": "1.0.0", "name": ')
    (tmp_path / "registries.conf").write_text("[[registry]]\nlocation = 7\n")
    (tmp_path / "policy.json").write_text('{"default": [')
    (tmp_path / "kubelet.yaml").write_text(
        "cgroupDriver: systemd\ncontainerRuntimeEndpoint: unix:///run/crio/crio.sock\n"
    )
    distribution(more, "noded-runc-copy", "runc", "")
    settings = {
        "root": small_disk,
        "state": tmp_path / "state",
        "listen": sock / "noded.sock",
        "cgroup_driver": "cgroupfs",
        "conmon": str(tmp_path / "no-conmon"),
        "default_runtime": "mine",
        "network": {"conf_dir": net, "bin_dirs": list(cni.BIN_DIRECTORIES)},
        "images": {
            "registries_conf": tmp_path / "registries.conf",
            "signature_policy": tmp_path / "policy.json",
        },
        "runtimes": {"mine": {"type": "crun", "path": str(tmp_path / "no-runtime")}},
    }
    config = tmp_path / "noded.toml"
    config.write_text(toml.dumps(settings))
    status, document = check(config, "--kubelet-config", str(tmp_path / "kubelet.yaml"), modules=(str(more),))
    found = wrong(document)
    assert (status, document["verdict"], document["schema"]) == (2, "fail", "noded.check/1")
    planted = {
        "network.plugins": ("no-such-plugin", "containernetworking-plugins"),
        "network.config": ("20-broken.conflist", str(net)),
        "runtimes.mine": ("no-runtime", "[runtimes.mine]"),
        f"runtimes.{tmp_path}/no-conmon": ("not found", "conmon"),
        "storage.space": (str(small_disk), "images rm"),
        "limits.nofile": ("1024", "LimitNOFILE"),
        "kernel.ip_forward": ("is 0", "net.ipv4.ip_forward=1"),
        "kubelet.cgroup_driver": ("systemd", "cgroupDriver: cgroupfs"),
        "kubelet.endpoint": ("crio.sock", f"unix://{sock}/noded.sock"),
        "daemon.socket_directory": ("0777", f"chmod 711 {sock}"),
        "images.registries": ("registries.conf", str(tmp_path / "registries.conf")),
        "images.policy": ("policy.json", str(tmp_path / "policy.json")),
        "plugins.runc": ("same name", "noded-"),
    }
    for name, (what, cure) in planted.items():
        assert name in found, (name, sorted(found))
        assert what in found[name]["found"], found[name]
        assert cure in found[name]["fix"], found[name]
        assert found[name]["why"]
    assert [path.name for path in small_disk.iterdir() if path.name.startswith(".noded-check")] == []


def test_a_node_without_those_faults_shows_none_of_them(daemon):
    """With a running daemon, whose word counts."""
    (daemon.directory / "kubelet.yaml").write_text(
        f"cgroupDriver: cgroupfs\ncontainerRuntimeEndpoint: {daemon.address}\nfailSwapOn: false\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "noded", "check", "--json", "--config", str(daemon.config),
         "--kubelet-config", str(daemon.directory / "kubelet.yaml")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    document = json.loads(done.stdout)
    found = wrong(document)
    assert done.returncode == {"ok": 0, "warn": 1, "fail": 2}[document["verdict"]]
    assert not {name for name in found if name.startswith(("network.", "images.", "kubelet.", "daemon."))}
    assert not {"storage.overlay", "runtimes.runc", "runtimes.conmon", "plugins.runc"} & set(found)
    (running,) = [each for each in document["results"] if each["check"] == "daemon.running"]
    assert running["found"].endswith(f"answers at {daemon.socket}")
    assert stat.S_IMODE(daemon.socket.stat().st_mode) == 0o660


def test_a_configuration_that_is_wrong_is_a_finding_not_the_end(tmp_path):
    (tmp_path / "noded.toml").write_text("rooot = '/x'\n")
    status, document = check(tmp_path / "noded.toml")
    assert status == 2
    assert "rooot" in wrong(document)["config.valid"]["found"]
