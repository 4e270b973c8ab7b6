"""Kubernetes' own kubelet on noded: static pods from their manifest to the last trace of them."""

from __future__ import annotations

import json
import os
import signal
import ssl
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kubelet import real_kubelet
from tests.kubelet.conftest import HOST
from tests.kubelet.real_kubelet import RealKubelet, within
from tests.support.daemon import NodedDaemon
from tests.support.oracle import Oracle
from tests.support.registry import Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        real_kubelet.program() is None, reason="NO kubelet IN PATH NOR IN KUBELET: its tests were not run"
    ),
]
IMAGE = f"{HOST}/kubelet/busybox:1"
_SECONDS = 120.0  # for one thing that kubelet does; what has ended it removes once a minute


class Node(NamedTuple):
    flavour: str
    daemon: NodedDaemon
    kubelet: RealKubelet


# Settings of noded, and of kubelet.
FLAVOURS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "cadvisor": ({"compat": {"cadvisor": True}}, {}),
    "cri-stats": ({}, {"featureGates": {"PodAndContainerStatsFromCRI": True, "EventedPLEG": True}}),
}


@pytest.fixture(scope="module", params=FLAVOURS)
def node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, pushed: Registry
) -> Iterator[Node]:
    """noded and a kubelet beside it that has run two pods before."""
    if request.param == "cadvisor" and Path("/run/crio/crio.sock").exists():
        pytest.skip("CRI-O is on this machine")
    settings, kubelet_settings = FLAVOURS[request.param]
    directory = tmp_path_factory.mktemp("real-kubelet")
    with (
        NodedDaemon(directory, mirrors={HOST: pushed.host}, settings=settings) as daemon,
        real_kubelet.running(directory, daemon, kubelet_settings) as kubelet,
    ):
        # What kubelet makes once for itself (cgroups, packet filter chains), and the image, are there then.
        requests = {"best-effort": {}, "burstable": {"cpu": "100m"}}
        for name, resources in requests.items():
            kubelet.put(pod(name, container("main", FOREVER, resources={"requests": resources})))
        for name in requests:
            ready(kubelet, name)
            kubelet.withdraw(name)
        gone(daemon)
        yield Node(request.param, daemon, kubelet)


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": list(containers), **spec},
    }


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    """Runs a shell script that ends at once on SIGTERM."""
    return {
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", f"trap 'exit 0' TERM; {script}"],
        **more,
    }


FOREVER = "sleep 100000 & wait"


def status(kubelet: RealKubelet, name: str) -> dict[str, Any]:
    found: dict[str, Any] = kubelet.pods().get(name, {}).get("status", {})
    return found


def ready(kubelet: RealKubelet, name: str) -> dict[str, Any]:
    """Wait until kubelet calls a pod ready; returns its status."""

    def seen() -> dict[str, Any]:
        now = status(kubelet, name)
        is_ready = {"type": "Ready", "status": "True"}
        met = any(is_ready.items() <= one.items() for one in now.get("conditions") or ())
        return now if met else {}

    found: dict[str, Any] = within(_SECONDS, seen)
    return found


def gone(daemon: NodedDaemon) -> None:
    with daemon.client() as cri:
        within(_SECONDS, lambda: not cri.pods() and not cri.containers())


def test_a_pod_with_hooks_probes_and_volumes_gets_ready_and_leaves_no_trace(
    node: Node, tmp_path: Path
) -> None:
    daemon, kubelet = node.daemon, node.kubelet
    oracle = Oracle(daemon)
    before = oracle.take()
    given = tmp_path / "given"
    given.mkdir()
    (given / "from-host").write_text("host\n")
    kubelet.put(
        pod(
            "whole",
            container(
                "main",
                "cat /init/word; echo started; " + FOREVER,
                volumeMounts=[
                    {"name": "shared", "mountPath": "/init"},
                    {"name": "host", "mountPath": "/host", "readOnly": True},
                ],
                env=[{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                lifecycle={
                    "postStart": {"exec": {"command": ["sh", "-c", "echo hooked > /init/hook"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "echo stopped > /init/stop"]}},
                },
                startupProbe={"exec": {"command": ["test", "-e", "/init/hook"]}, "periodSeconds": 1},
                readinessProbe={
                    "exec": {"command": ["sh", "-c", 'test -n "$IP" && grep -q host /host/from-host']},
                    "periodSeconds": 1,
                },
                livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 2, "initialDelaySeconds": 1},
                resources={"limits": {"cpu": "200m", "memory": "64Mi"}},
            ),
            container("web", "httpd -p 8080 -h /; " + FOREVER),
            initContainers=[
                container(
                    "first",
                    "echo prepared > /init/word",
                    volumeMounts=[{"name": "shared", "mountPath": "/init"}],
                )
            ],
            volumes=[
                {"name": "shared", "emptyDir": {"medium": "Memory"}},
                {"name": "host", "hostPath": {"path": str(given), "type": "Directory"}},
            ],
        )
    )
    seen = ready(kubelet, "whole")
    assert seen["podIP"]
    assert {one["name"]: one["restartCount"] for one in seen["containerStatuses"]} == {"main": 0, "web": 0}
    (log,) = kubelet.pod_logs.glob("default_whole-*/main/0.log")
    assert [line.split(" ", 3)[3] for line in log.read_text().splitlines()] == ["prepared", "started"]
    kubelet.withdraw("whole")
    gone(daemon)
    oracle.assert_unchanged(before)


def test_a_container_that_ends_is_started_again_with_back_off(node: Node) -> None:
    kubelet = node.kubelet
    kubelet.put(pod("failing", container("main", "echo failing > /dev/termination-log; exit 7")))

    def restarted() -> dict[str, Any]:
        statuses = status(kubelet, "failing").get("containerStatuses") or ()
        return next((one for one in statuses if one["restartCount"] >= 2), {})

    seen = within(_SECONDS, restarted)
    ended = (seen["lastState"] | seen["state"])["terminated"]
    assert (ended["exitCode"], ended["message"].strip()) == (7, "failing")
    kubelet.withdraw("failing")


@pytest.mark.parametrize("ends", ["noded", "kubelet", "both"])
def test_a_pod_does_not_notice_that_what_runs_it_is_killed(node: Node, ends: str) -> None:
    daemon, kubelet = node.daemon, node.kubelet
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    kubelet.put(pod(f"stays-{ends}", container("main", FOREVER, livenessProbe=probe, readinessProbe=probe)))
    before = ready(kubelet, f"stays-{ends}")
    if ends != "noded":
        kubelet.stop()
    if ends != "kubelet":
        daemon.restart(hard=True)
    if ends != "noded":
        kubelet.start()
    # A pod that is added afterwards shows that kubelet has looked at everything again.
    kubelet.put(pod(f"later-{ends}", container("main", FOREVER)))
    ready(kubelet, f"later-{ends}")
    after = ready(kubelet, f"stays-{ends}")
    assert after["podIP"] == before["podIP"]
    (old,), (new,) = before["containerStatuses"], after["containerStatuses"]
    assert (new["containerID"], new["restartCount"]) == (old["containerID"], 0)
    for name in (f"stays-{ends}", f"later-{ends}"):
        kubelet.withdraw(name)


def test_a_container_that_is_killed_is_seen_and_replaced(node: Node) -> None:
    daemon, kubelet = node.daemon, node.kubelet
    kubelet.put(pod("killed", container("main", FOREVER)))
    (old,) = ready(kubelet, "killed")["containerStatuses"]
    with daemon.client() as cri:
        verbose = cri.verbose_status(old["containerID"].partition("://")[2])
        pid = json.loads(verbose.info["info"])["pid"]
    os.kill(pid, signal.SIGKILL)

    def replaced() -> dict[str, Any]:
        statuses = status(kubelet, "killed").get("containerStatuses") or ()
        return next((one for one in statuses if one["restartCount"] == 1 and one["ready"]), {})

    new = within(_SECONDS, replaced)
    assert new["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    kubelet.withdraw("killed")


def test_streams_and_logs_pass_through_kubelet(node: Node) -> None:
    kubelet = node.kubelet
    kubelet.put(pod("streams", container("main", "echo said; httpd -p 8080 -h /; " + FOREVER)))
    ready(kubelet, "streams")
    of_pod = f"default/streams-{real_kubelet.NODE}"
    with closing(
        kubelet.open_stream(
            f"/exec/{of_pod}/main", "v5.channel.k8s.io", command=["cat"], input=1, output=1, error=1
        )
    ) as stream:
        stream.send_binary(b"\0there and back")
        assert stdout_of(stream, len("there and back")) == b"there and back"
    with closing(kubelet.open_stream(f"/portForward/{of_pod}", "v4.channel.k8s.io", port=8080)) as stream:
        stream.send_binary(b"\0GET /bin/none HTTP/1.0\r\n\r\n")
        head = (8080).to_bytes(2, "little") + b"HTTP/1.1 404"  # the port begins each of the two channels
        assert stdout_of(stream, len(head), channel=0).startswith(head)
    context = ssl._create_unverified_context()
    url = f"https://127.0.0.1:{kubelet.port}/containerLogs/{of_pod}/main"
    with urllib.request.urlopen(url, context=context, timeout=30) as answer:
        assert answer.read() == b"said\n"
    kubelet.withdraw("streams")


def stdout_of(stream: Any, length: int, channel: int = 1) -> bytes:
    """The first bytes of a channel."""
    got = b""
    while len(got) < length:
        message = stream.recv()
        assert message, got
        if message[0] == channel:
            got += message[1:]
    return got


def test_kubelet_knows_the_network_and_the_labels_of_containers(node: Node) -> None:
    if node.flavour == "plain":
        pytest.skip("its cAdvisor asks neither CRI nor CRI-O for them")
    kubelet = node.kubelet
    kubelet.put(pod("measured", container("main", FOREVER)))
    ready(kubelet, "measured")

    def summary() -> dict[str, Any]:
        pods = json.loads(kubelet.get("/stats/summary"))["pods"]
        one = next((one for one in pods if one["podRef"]["name"].startswith("measured")), {})
        return one if one.get("network", {}).get("txBytes") and one.get("containers") else {}

    seen = within(_SECONDS, summary)
    (main,) = seen["containers"]
    assert main["cpu"]["usageCoreNanoSeconds"] > 0
    assert main["memory"]["workingSetBytes"] > 0
    assert main["rootfs"]["usedBytes"] > 0

    def labelled() -> bool:
        """Whether Prometheus finds the container's and the pod's series."""
        lines = [line for line in kubelet.get("/metrics/cadvisor").splitlines() if 'pod="measured' in line]
        of_container = {line.partition("{")[0] for line in lines if 'container="main"' in line}
        wanted = {"container_cpu_usage_seconds_total", "container_memory_working_set_bytes"}
        network = any(line.startswith("container_network_transmit_bytes_total") for line in lines)
        return network and wanted <= of_container

    assert within(_SECONDS, labelled)
    kubelet.withdraw("measured")
