"""What is gVisor's own: its kernel, its one process for a pod, its options, what it cannot do."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from noded.errors import NodedError
from noded.proto.runtime import v1 as cri
from noded.testing import HandlerCase, TestNode
from noded.testing.node import eventually
from noded.testing.pods import TestContainer
from tests.support.processes import kept_stopped

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("runsc") is None, reason="runsc is not installed"),
]

TOML = 'type = "runsc"\nplatform = "ptrace"\nnetwork = "host"\n'
SLEEP = "exec busybox sleep 1000"


@pytest.fixture(scope="module")
def node():
    with TestNode([HandlerCase("runsc", TOML)]) as running:
        yield running


def info_of(node: TestNode, pod_id: str) -> dict[str, object]:
    """noded's details of a pod."""
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod_id, verbose=True)
    reply = node.runtime("PodSandboxStatus", request, cri.PodSandboxStatusResponse)
    details: dict[str, object] = json.loads(reply.info["info"])
    return details


def sentry(node: TestNode, pod_id: str) -> int:
    """Pid of a pod's sandbox process."""
    return int(str(info_of(node, pod_id)["pid"]))


def processes_of(identity: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if identity.encode() in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def test_the_kernel_inside_is_gvisors(node):
    pod = node.run_pod("runsc")
    container = pod.run(SLEEP)
    assert b"Starting gVisor" in container.exec("busybox dmesg").stdout
    assert container.exec("busybox uname -r").stdout.decode().strip() != platform.release()
    pod.remove()


def test_a_container_gets_all_capabilities_that_gvisor_knows(node):
    pod = node.run_pod("runsc")
    container = pod.run(SLEEP, add_capabilities=["ALL"])
    shown = container.exec("busybox grep CapEff: /proc/1/status").stdout.split()[1]
    assert int(shown, 16) >= 1 << 37  # CAP_AUDIT_READ, the highest that its releases have in common
    pod.remove()


def test_pods_of_two_handlers_live_side_by_side(node):
    pods = {handler: node.run_pod(handler) for handler in ("runsc", "runc", "crun")}
    kernels = {name: pod.run(SLEEP).exec("busybox uname -r").stdout for name, pod in pods.items()}
    assert kernels["runc"] == kernels["crun"] == platform.release().encode() + b"\n"
    assert kernels["runsc"] != kernels["runc"]
    for pod in pods.values():
        pod.remove()


def test_crictl_chooses_the_handler_by_its_name(node, tmp_path, crictl):
    config = {
        "metadata": {"name": "by-name", "namespace": "default", "uid": "by-name"},
        "log_directory": str(tmp_path),
        "linux": {"cgroup_parent": f"/{node.state.name.removesuffix('-state')}"},
    }
    command = [crictl, "--runtime-endpoint", node.address, "--timeout", "60s"]
    pods = {}
    for handler in ("runsc", "runc"):
        config["metadata"]["name"] = config["metadata"]["uid"] = handler
        (tmp_path / "pod.json").write_text(json.dumps(config))
        done = subprocess.run(
            [*command, "runp", "-r", handler, tmp_path / "pod.json"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        pods[handler] = done.stdout.strip()
    listed = subprocess.run([*command, "pods", "-o", "json"], capture_output=True, text=True, check=True)
    found = {item["id"]: item["runtimeHandler"] for item in json.loads(listed.stdout)["items"]}
    assert found | {pods["runsc"]: "runsc", pods["runc"]: "runc"} == found
    sandbox = sentry(node, pods["runsc"])
    assert Path(f"/proc/{sandbox}/comm").read_text().strip() in ("exe", "runsc-sandbox")
    for pod_id in pods.values():
        subprocess.run([*command, "rmp", "-f", pod_id], capture_output=True, check=True)


def listens(container: TestContainer, port: int) -> None:
    """Wait for a server inside."""
    table = "cat /proc/net/tcp /proc/net/tcp6"
    eventually(lambda: b":%04X " % port in container.exec(table).stdout, 20, f"port {port} is listened at")


def test_connections_are_forwarded_to_a_server_that_reads_before_it_polls(node, counts):
    # With `network = "host"` read(2) of this release does not wait for data.
    pod = node.run_pod("runsc")
    container = pod.run("exec httpd -f -p 127.0.0.1:8080 -h /www")
    listens(container, 8080)
    for _ in range(counts(10, 100)):
        with pod.forward(8080) as session:
            time.sleep(0.05)  # a client that thinks for a moment
            session.send(0, b"GET / HTTP/1.0\r\n\r\n")
            assert b"200 OK" in session.until(0, b"Hello")
    pod.remove()


def test_a_server_that_speaks_first_is_heard(node):
    pod = node.run_pod("runsc")
    container = pod.run("exec busybox nc -ll -p 8080 -e /bin/sh -c 'echo welcome'")
    eventually(
        lambda: b":1F90 " in container.exec("cat /proc/net/tcp /proc/net/tcp6").stdout,
        20,
        "the server listens",
    )
    with pod.forward(8080) as session:
        session.until(0, b"welcome")
    pod.remove()


@pytest.mark.parametrize("how", ["killed", "kept stopped"])
def test_a_lost_sentry_ends_its_pod_and_no_other(node, how):
    pod, other = node.run_pod("runsc"), node.run_pod("runsc")
    container, living = pod.run(SLEEP), other.run(SLEEP)
    pid = sentry(node, pod.id)
    with kept_stopped(pid) if how == "kept stopped" else nullcontext():
        if how == "killed":
            os.kill(pid, signal.SIGKILL)
        assert container.wait(30).exit_code == 137
        eventually(lambda: not pod.ready, 30, "the pod is not ready")
    assert "init process" in str(info_of(node, pod.id)["endedBecause"])
    assert other.ready
    assert living.exec("true").exit_code == 0
    pod.remove()
    other.remove()
    assert processes_of(pod.id) == processes_of(container.id) == []


def test_a_sentry_that_was_stopped_once_goes_on(node):
    pod = node.run_pod("runsc")
    container = pod.run(SLEEP)
    os.kill(sentry(node, pod.id), signal.SIGSTOP)
    assert container.exec("echo alive").stdout == b"alive\n"
    assert pod.ready
    pod.remove()


def test_a_stopped_sentry_can_be_removed_in_bounded_time(node):
    pod, other = node.run_pod("runsc"), node.run_pod("runsc")
    container, living = pod.run(SLEEP), other.run(SLEEP)
    os.kill(sentry(node, pod.id), signal.SIGSTOP)
    started = time.monotonic()
    assert living.exec("true").exit_code == 0
    pod.remove()
    assert time.monotonic() - started < 60
    assert other.ready
    assert living.exec("true").exit_code == 0
    other.remove()
    assert processes_of(pod.id) == processes_of(container.id) == []


def test_a_killed_stand_in_ends_its_container_only(node):
    pod = node.run_pod("runsc")
    victim, other = pod.run(SLEEP, name="victim"), pod.run(SLEEP, name="other")
    os.kill(victim.info()["pid"], signal.SIGKILL)
    assert victim.wait(20).exit_code == 137
    assert other.exec("true").exit_code == 0
    victim.remove()
    assert processes_of(victim.id) == []
    pod.remove()


def test_a_pod_without_network_has_a_loopback_only():
    with TestNode([HandlerCase("runsc", TOML.replace('"host"', '"none"'))]) as node:
        pod = node.run_pod("runsc")
        names = pod.run(SLEEP).exec("busybox ls /sys/class/net; busybox cat /proc/net/dev").stdout
        assert b"lo" in names
        assert b"eth0" not in names
        pod.remove()


def test_flags_are_on_every_command(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    toml = f'{TOML}debug = true\nstrace = true\ndebug_log = "{logs}"\nfile_access = "shared"\n'
    with TestNode([HandlerCase("runsc", toml)]) as node:
        pod = node.run_pod("runsc")
        container = pod.run(SLEEP)
        container.exec("echo traced")
        container.stop()
        pod.remove()
    commands = {path.name.removesuffix(".txt").rpartition(".")[2] for path in logs.iterdir()}
    assert commands >= {"create", "start", "exec", "kill", "wait", "delete", "boot", "gofer"}
    boot = next(path for path in logs.iterdir() if path.name.endswith("boot.txt")).read_text()
    assert "execve" in boot  # strace


@pytest.mark.parametrize(
    "line", ['platform = "sorcery"', 'network = "cloud"', 'debug = true\ndebug_log = "here"']
)
def test_a_wrong_option_makes_the_handler_unavailable_and_is_named(line):
    key = line.splitlines()[-1].split(" ")[0]
    with TestNode(
        [HandlerCase("runsc", f'type = "runsc"\n{line}'), HandlerCase("fine", 'type = "runc"')]
    ) as node:
        with pytest.raises(NodedError, match=rf"runtimes\.runsc\.{key}"):
            node.run_pod("runsc")
        node.run_pod("fine").remove()


def test_a_pod_with_a_user_namespace_is_refused(node):
    mapping = cri.IdMapping(host_id=100000, container_id=0, length=65536)
    options = cri.NamespaceOption(
        userns_options=cri.UserNamespace(mode=cri.NamespaceMode.POD, uids=[mapping], gids=[mapping])
    )
    config = cri.PodSandboxConfig(
        metadata=cri.PodSandboxMetadata(name="userns", namespace="default", uid="userns"),
        linux=cri.LinuxPodSandboxConfig(
            security_context=cri.LinuxSandboxSecurityContext(namespace_options=options)
        ),
    )
    request = cri.RunPodSandboxRequest(config=config, runtime_handler="runsc")
    with pytest.raises(NodedError, match="user namespace"):
        node.runtime("RunPodSandbox", request, cri.RunPodSandboxResponse)
