"""The session that an administrator has with crictl, on each handler."""

from __future__ import annotations

import json
import subprocess

import pytest

pytestmark = pytest.mark.root
HOST = "registry.example"


@pytest.fixture
def run(daemon, crictl):
    """Run crictl; return its output."""

    def call(*arguments: str, check: bool = True) -> str:
        command = [
            crictl,
            "--runtime-endpoint",
            daemon.address,
            "--image-endpoint",
            daemon.address,
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert not check or done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout.strip()

    return call


def test_the_whole_life_of_a_pod(daemon, run, handler, tmp_path, oracle):
    before = oracle.take()
    logs = tmp_path / "logs"
    logs.mkdir()
    pod_file, container_file = tmp_path / "pod.json", tmp_path / "container.json"
    pod_file.write_text(
        json.dumps(
            {
                "metadata": {"name": "web", "namespace": "default", "uid": "u1", "attempt": 0},
                "log_directory": str(logs),
                "linux": {"cgroup_parent": daemon.cgroup_parent},
            }
        )
    )
    container_file.write_text(
        json.dumps(
            {
                "metadata": {"name": "main"},
                "image": {"image": f"{HOST}/e2e/busybox:1"},
                "command": ["/bin/sh", "-c", "echo started; sleep 1000"],
                "log_path": "main.log",
                "linux": {},
            }
        )
    )
    run("pull", f"{HOST}/e2e/busybox:1")
    assert "e2e/busybox" in run("images")
    pod = run("runp", "-r", handler, str(pod_file))
    container = run("create", pod, str(container_file), str(pod_file))
    run("start", container)
    assert run("exec", "-s", container, "echo", "hello") == "hello"
    assert run("logs", container) == "started"
    assert container in run("ps", "-q", "--no-trunc")
    assert pod in run("pods", "-q", "--no-trunc")
    assert json.loads(run("inspect", container))["status"]["state"] == "CONTAINER_RUNNING"
    assert json.loads(run("inspectp", pod))["status"]["network"]["ip"]
    conditions = json.loads(run("info"))["status"]["conditions"]
    assert all(condition["status"] for condition in conditions)
    assert run("version").splitlines()[1].split()[-1] == "noded"
    run("stop", container[:13])
    follow = run("logs", "-f", container)
    assert follow == "started"
    run("rm", container[:13])
    run("stopp", pod)
    run("rmp", pod)
    run("rmi", f"{HOST}/e2e/busybox:1")
    assert run("images", "-q") == ""
    oracle.assert_unchanged(before)
