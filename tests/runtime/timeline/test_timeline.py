"""`noded timeline` of real pods: it explains the time that a client measures, and survives the daemon."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from noded.model.timeline import from_json
from tests.bench.measures.timeline import cost_seconds
from tests.runtime.e2e.conftest import HOST
from tests.support.daemon import REPOSITORY
from tests.support.documents import documented

pytestmark = pytest.mark.root

WITHIN = 0.05
OWN = 0.1  # part of a start's calls that no step explains


def timeline(daemon, *arguments: str, fails: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "noded", "timeline", *arguments, "--address", daemon.address],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def document(daemon, *arguments: str) -> dict:
    found = documented("timeline", timeline(daemon, *arguments, "--json"))
    assert found["schema"] == "noded.timeline/1"
    return found["pods"][-1]


def names(steps) -> list[str]:
    return [name for step in steps for name in (step["name"], *names(step["steps"]))]


def covered_ns(call) -> int:
    total, reached = 0, call["start_ns"]
    for step in call["steps"]:
        total += max(0, step["end_ns"] - max(reached, step["start_ns"]))
        reached = max(reached, step["end_ns"])
    return total


def journal_has(daemon, text: str, seconds: float = 10.0) -> None:
    """The daemon writes once a second, and tells nobody."""
    deadline = time.monotonic() + seconds
    while not any(text in path.read_text() for path in (daemon.root / "timelines").glob("*")):
        assert time.monotonic() < deadline, f"the journal never had {text}"
        time.sleep(0.02)


def pull(cri, reference: str, config) -> None:
    request = cri.pb.PullImageRequest(image=cri.pb.ImageSpec(image=reference), sandbox_config=config)
    cri.image.PullImage(request, timeout=60)


def test_a_timeline_explains_the_time_that_the_client_measured(daemon, cri):
    warm = daemon.pod_config(cri, "warm")  # what only the first pod of a daemon loads is not noise here
    cri.remove_pod(cri.run_pod(warm))
    config = daemon.pod_config(cri, "web")
    reference = f"{HOST}/e2e/busybox:1"
    begun = time.monotonic_ns()
    pod = cri.run_pod(config)
    pull(cri, reference, config)
    container = cri.create(pod, cri.container_config("main", reference, ["sleep", "1000"]), config)
    cri.start(container)
    measured_ns = time.monotonic_ns() - begun

    found = document(daemon, "web")
    (phase,) = found["phases"]
    calls = phase["calls"]
    assert [call["method"] for call in calls] == [
        "RunPodSandbox", "PullImage", "CreateContainer", "StartContainer",
    ]  # fmt: skip
    assert (found["id"], phase["kind"], phase["failed"]) == (pod, "start", False)
    assert phase["end_ns"] - phase["start_ns"] == pytest.approx(measured_ns, rel=WITHIN)
    run, pulled, create, start = calls
    # Under load there are waits for the event loop between them.
    beside = ("wait", "check", "read")
    rungs = [step["name"] for step in run["steps"] if step["name"].partition(" ")[0] not in beside]
    assert rungs == [
        "record", "cgroup", "files", "namespaces", "network", "runtime", "ready",
    ]  # fmt: skip
    assert {"CNI bridge ADD", "CNI portmap ADD"} <= set(names(run["steps"]))
    assert {"manifest", "layers", "download", "inflate and extract", "publish"} <= set(names(pulled["steps"]))
    assert {"rootfs", "spec", "start conmon", "runc create"} <= set(names(create["steps"]))
    assert "runc start" in names(start["steps"])
    # What is left is the daemon's own: decoding, two event loops, the answer. It is a millisecond for each
    # call, more on a busy machine.
    took_ns = sum(call["end_ns"] - call["start_ns"] for call in calls)
    assert sum(covered_ns(call) for call in calls) >= took_ns * (1 - OWN), calls
    print(
        f"measured {measured_ns / 1e6:.1f} ms, timeline {(phase['end_ns'] - phase['start_ns']) / 1e6:.1f} ms"
    )
    print(timeline(daemon, "web"))


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that have ended (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def test_a_timeline_costs_less_than_a_hundredth_of_the_cpu_of_a_pods_start(daemon, cri, busybox, counts):
    cri.remove_pod(cri.run_pod(daemon.pod_config(cri, "warm")))
    pods, before = [], cpu_seconds(daemon.pid)
    for number in range(counts(4, 30)):
        config = daemon.pod_config(cri, f"web-{number}")
        pods.append(cri.run_pod(config))
        cri.start(cri.create(pods[-1], cri.container_config("main", busybox, ["sleep", "1000"]), config))
    used = cpu_seconds(daemon.pid) - before
    cost = 0.0
    for pod in pods:
        (recorded,) = cri.admin.Timeline(cri.admin_pb.TimelineRequest(pod=pod), timeout=60).pods
        calls = [from_json(json.loads(call)) for call in recorded.calls]
        assert sum(len(call.spans) for call in calls) > 10
        cost += cost_seconds(calls)
    print(f"{1000 * cost / len(pods):.2f} ms of {1000 * used / len(pods):.0f} ms: {100 * cost / used:.2f} %")
    assert cost < used / 100
    for pod in pods:
        cri.remove_pod(pod)


def test_a_timeline_outlives_its_pod_and_the_daemons_death(daemon, cri, busybox):
    config = daemon.pod_config(cri, "gone")
    pod = cri.run_pod(config)
    cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    cri.remove_pod(pod)
    journal_has(daemon, "RemovePodSandbox")  # a crash may cost the last second
    daemon.restart(hard=True)
    found = document(daemon, "default/gone")
    assert found["id"] == pod
    assert [phase["kind"] for phase in found["phases"]] == ["start", "end"]
    assert found["phases"][1]["calls"][-1]["method"] == "RemovePodSandbox"
    assert document(daemon, pod[:12]) == found
    assert "gone" in timeline(daemon)
    assert "no timeline of a pod nobody" in timeline(daemon, "nobody", fails=True)


def test_a_failed_start_shows_its_last_steps(daemon, cri, busybox):
    config = daemon.pod_config(cri, "broken")
    pod = cri.run_pod(config)
    with pytest.raises(grpc.RpcError) as failure:
        cri.run_container(pod, cri.container_config("main", busybox, ["/absent"]), config)
    found = document(daemon, "broken")
    call = found["phases"][-1]["calls"][-1]
    assert found["phases"][-1]["failed"]
    assert failure.value.details() in call["error"]
    (rung,) = [step for step in call["steps"] if step["name"] == "runtime"]
    assert "/absent" in rung["error"]
    assert "undo record" in names(call["steps"])
    shown = timeline(daemon, "broken")
    assert "failed after" in shown
    assert "✗" in shown


def test_a_picture_and_a_page_are_written(daemon, cri, tmp_path: Path):
    cri.run_pod(daemon.pod_config(cri, "drawn"))
    page, picture = tmp_path / "drawn.html", tmp_path / "drawn.svg"
    assert timeline(daemon, "drawn", "--html", str(page), "--svg", str(picture)) == ""
    assert "CNI bridge ADD" in page.read_text()
    assert "CNI bridge ADD" in picture.read_text()
