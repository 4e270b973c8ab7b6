"""Statistics of real containers: what the kernel counts is what clients read."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest

pytestmark = pytest.mark.root

BURN = "while :; do :; done"


def stats_of(cri, container: str):
    return cri.runtime.ContainerStats(cri.pb.ContainerStatsRequest(container_id=container), timeout=10).stats


def listed(cri, **wanted):
    request = cri.pb.ListContainerStatsRequest(filter=cri.pb.ContainerStatsFilter(**wanted))
    return {item.attributes.id: item for item in cri.runtime.ListContainerStats(request, timeout=10).stats}


def pod_stats(cri, pod: str):
    return cri.runtime.PodSandboxStats(cri.pb.PodSandboxStatsRequest(pod_sandbox_id=pod), timeout=10).stats


def test_a_busy_container_shows_its_cpu(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    busy = cri.run_container(pod, cri.container_config("busy", busybox, ["sh", "-c", BURN]), config)
    idle = cri.run_container(pod, cri.container_config("idle", busybox, ["sleep", "1000"]), config)
    first = listed(cri)
    assert not first[busy].cpu.HasField("usage_nano_cores")  # nothing to compare with yet
    deadline = time.monotonic() + 30
    samples = [first[busy].cpu]
    while True:
        second = listed(cri)
        samples.append(second[busy].cpu)
        used = second[busy].cpu.usage_core_nano_seconds.value - first[busy].cpu.usage_core_nano_seconds.value
        if used > 500_000_000:
            break
        assert time.monotonic() < deadline
        time.sleep(0.2)
    *earlier, newest = samples
    rates = [  # noded tells the rate since one of the earlier samples
        (newest.usage_core_nano_seconds.value - one.usage_core_nano_seconds.value)
        / (newest.timestamp - one.timestamp)
        * 1e9
        for one in earlier
    ]
    assert min(rates) * 0.9 <= newest.usage_nano_cores.value <= max(rates) * 1.1
    assert second[idle].cpu.usage_nano_cores.value < 50_000_000
    whole = pod_stats(cri, pod)
    assert whole.linux.cpu.usage_core_nano_seconds.value > used
    assert whole.linux.process.process_count.value == 2
    assert {one.attributes.id for one in whole.linux.containers} == {busy, idle}


def test_the_memory_of_a_hog_shows_against_its_limit(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    script = "head -c 30000000 /dev/zero | tail -c 30000000 | sleep 1000"  # tail holds all of it
    hog = cri.run_container(
        pod, cri.container_config("hog", busybox, ["sh", "-c", script], memory_bytes=100 << 20), config
    )
    deadline = time.monotonic() + 20
    while True:  # the kernel's counters follow the pages one after another
        memory = stats_of(cri, hog).memory
        if min(memory.working_set_bytes.value, memory.rss_bytes.value) > 25_000_000:
            break
        assert time.monotonic() < deadline, memory
        time.sleep(0.1)
    assert memory.usage_bytes.value >= memory.working_set_bytes.value
    assert memory.available_bytes.value == (100 << 20) - memory.working_set_bytes.value
    assert memory.page_faults.value > 0
    assert pod_stats(cri, pod).linux.memory.working_set_bytes.value > 25_000_000


def test_what_a_container_writes_is_its_writable_layer(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    config_of = cri.container_config(
        "main", busybox, ["sh", "-c", "head -c 5000000 /dev/zero > /big; sleep 1000"]
    )
    container = cri.run_container(pod, config_of, config)
    cri.exec(container, "sh", "-c", "while [ $(stat -c %s /big) != 5000000 ]; do sleep 0.1; done; sync")
    layer = stats_of(cri, container).writable_layer
    assert 5_000_000 <= layer.used_bytes.value < 6_000_000
    assert 1 <= layer.inodes_used.value < 100
    assert Path(layer.fs_id.mountpoint).is_dir()
    images = cri.image.ImageFsInfo(cri.pb.ImageFsInfoRequest(), timeout=10)
    assert layer.fs_id.mountpoint == images.container_filesystems[0].fs_id.mountpoint
    assert abs(layer.timestamp - time.time_ns()) < 60e9


@contextmanager
def serving(body: bytes):
    """A web server on all addresses of the host; gives its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with HTTPServer(("", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_traffic_counts_on_the_pods_device(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    before = pod_stats(cri, pod).linux.network
    assert before.default_interface.name == "eth0"
    assert [one.name for one in before.interfaces if one.name == "lo"] == []
    gateway = cri.pod_ip(pod).rsplit(".", 1)[0] + ".1"
    with serving(b"x" * 100_000) as port:
        answer = cri.exec(container, "sh", "-c", f"wget -qO- http://{gateway}:{port}/ | wc -c")
    assert answer.stdout.strip() == b"100000"
    after = pod_stats(cri, pod).linux.network.default_interface
    assert after.tx_bytes.value > before.default_interface.tx_bytes.value + 200
    assert after.rx_bytes.value > before.default_interface.rx_bytes.value + 100_000
    assert after.rx_errors.value == 0


def test_a_host_network_pod_has_no_network_of_its_own(daemon, cri, busybox):
    config = daemon.pod_config(cri, network="NODE")
    pod = cri.run_pod(config)
    assert not pod_stats(cri, pod).linux.HasField("network")


def test_an_ended_container_does_not_break_a_list_and_keeps_its_disk(daemon, cri, busybox):
    config = daemon.pod_config(cri, labels={"app": "x"})
    pod = cri.run_pod(config)
    done = cri.run_container(pod, cri.container_config("done", busybox, ["true"], labels={"a": "1"}), config)
    live = cri.run_container(
        pod, cri.container_config("live", busybox, ["sleep", "1000"], labels={"a": "2"}), config
    )
    cri.wait_exited(done)
    both = listed(cri)
    assert set(both) == {done, live}
    assert not both[done].HasField("cpu")
    assert both[done].HasField("writable_layer")
    assert both[live].cpu.timestamp > 0
    assert both[live].attributes.metadata.name == "live"
    assert set(listed(cri, label_selector={"a": "2"})) == {live}
    assert set(listed(cri, id=done)) == {done}
    assert set(listed(cri, pod_sandbox_id="f" * 64)) == set()
    with pytest.raises(grpc.RpcError) as caught:
        stats_of(cri, "f" * 64)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    chunks = list(cri.runtime.StreamContainerStats(cri.pb.StreamContainerStatsRequest(), timeout=10))
    assert {one.attributes.id for chunk in chunks for one in chunk.container_stats} == {done, live}
    cri.stop_pod(pod)
    assert not pod_stats(cri, pod).HasField("linux")
    pods = cri.runtime.ListPodSandboxStats(cri.pb.ListPodSandboxStatsRequest(), timeout=10).stats
    assert list(pods) == []


def test_pods_below_one_parent_are_told_apart(daemon, cri, busybox):
    configs = [daemon.pod_config(cri), daemon.pod_config(cri)]
    pods = [cri.run_pod(config) for config in configs]
    cri.run_container(pods[0], cri.container_config("busy", busybox, ["sh", "-c", BURN]), configs[0])
    time.sleep(0.5)
    answer = cri.runtime.ListPodSandboxStats(cri.pb.ListPodSandboxStatsRequest(), timeout=10)
    used = {one.attributes.id: one.linux.cpu.usage_core_nano_seconds.value for one in answer.stats}
    assert used[pods[0]] > 50_000_000
    assert used[pods[1]] == 0
    streamed = cri.runtime.StreamPodSandboxStats(cri.pb.StreamPodSandboxStatsRequest(), timeout=10)
    assert {one.attributes.id for chunk in streamed for one in chunk.pod_sandbox_stats} == set(pods)
