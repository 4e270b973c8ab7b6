"""Metrics of pods through CRI, and the daemon's own through HTTP."""

from __future__ import annotations

import os
import socket
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.runtime.e2e.conftest import HOST
from tests.support.daemon import NodedDaemon
from tests.support.images import Entry, build, tar
from tests.support.ports import free_port
from tests.support.processes import wait_for_lines
from tests.support.slow_registry import SlowRegistry

pytestmark = pytest.mark.root

MIB = 1 << 20


def metrics_of(cri, pod: str):
    answer = cri.runtime.ListPodSandboxMetrics(cri.pb.ListPodSandboxMetricsRequest(), timeout=10)
    return next(one for one in answer.pod_metrics if one.pod_sandbox_id == pod)


def test_every_sample_has_a_descriptor_and_as_many_labels(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri, "measured", namespace="team")
    pod = cri.run_pod(config, handler)
    wanted = cri.container_config("main", busybox, ["sleep", "1000"], memory_bytes=64 * MIB)
    wanted.linux.resources.cpu_quota, wanted.linux.resources.cpu_period = 20000, 100000
    wanted.linux.resources.cpu_shares = 512
    container = cri.run_container(pod, wanted, config)
    cri.exec(container, "sh", "-c", "head -c 2000000 /dev/zero > /file; sync")
    descriptors = {
        one.name: one
        for one in cri.runtime.ListMetricDescriptors(
            cri.pb.ListMetricDescriptorsRequest(), timeout=10
        ).descriptors
    }
    assert len(descriptors) == 56
    found = metrics_of(cri, pod)
    (inside,) = found.container_metrics
    assert inside.container_id == container
    values: dict[str, dict[tuple, int]] = {}
    for sample in (*found.metrics, *inside.metrics):
        keys = descriptors[sample.name].label_keys
        assert len(sample.label_values) == len(keys), sample.name
        labels = dict(zip(keys, sample.label_values, strict=True))
        assert (labels["namespace"], labels["pod"]) == ("team", "measured")
        assert sample.timestamp > 0
    for sample in inside.metrics:
        labels = dict(zip(descriptors[sample.name].label_keys, sample.label_values, strict=True))
        assert (labels["container"], labels["name"]) == ("main", container)
        assert labels["image"] == busybox
        assert (
            Path("/sys/fs/cgroup/memory" + labels["id"]).is_dir()
            or Path("/sys/fs/cgroup" + labels["id"]).is_dir()
        )
        values.setdefault(sample.name, {})[tuple(sample.label_values[6:])] = sample.value.value
    assert values["container_spec_memory_limit_bytes"] == {(): 64 * MIB}
    assert values["container_spec_cpu_quota"] == {(): 20000}
    assert values["container_spec_cpu_period"] == {(): 100000}
    assert values["container_spec_cpu_shares"] == {(): 512}
    assert values["container_processes"] == {(): 1}
    assert values["container_threads"] == {(): 1}
    assert values["container_file_descriptors"][()] >= 3
    assert values["container_sockets"] == {(): 0}
    assert 0 < values["container_memory_usage_bytes"][()] <= 64 * MIB
    assert values["container_start_time_seconds"] == {(): cri.status(container).started_at // 10**9}
    assert next(iter(values["container_fs_usage_bytes"].values())) >= 2_000_000
    assert ("max_open_files",) in values["container_ulimits_soft"]
    of_pod = {sample.name for sample in found.metrics}
    assert "container_network_receive_bytes_total" in of_pod
    assert "container_cpu_usage_seconds_total" in of_pod
    streamed = cri.runtime.StreamPodSandboxMetrics(cri.pb.StreamPodSandboxMetricsRequest(), timeout=10)
    assert [one.pod_sandbox_id for chunk in streamed for one in chunk.pod_sandbox_metrics] == [pod]
    cri.stop_pod(pod)
    answer = cri.runtime.ListPodSandboxMetrics(cri.pb.ListPodSandboxMetricsRequest(), timeout=10)
    assert list(answer.pod_metrics) == []


def fetch(port: int, path: str = "/metrics") -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return str(answer.read().decode())


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_the_daemon_counts_its_own_work(tmp_path, pushed):
    port = free_port()
    settings = {"metrics": {"listen": f"127.0.0.1:{port}"}}
    mirrors = {HOST: pushed.host}
    with (
        NodedDaemon(tmp_path, settings=settings, mirrors=mirrors, insecure=[pushed.host]) as daemon,
        daemon.client() as cri,
    ):
        busybox = f"{HOST}/e2e/busybox:1"
        cri.pull(busybox)
        config = daemon.pod_config(cri)
        pod = cri.run_pod(config)
        hog = cri.container_config(
            "hog", busybox, ["sh", "-c", "tail -c 100000000 /dev/zero"], memory_bytes=10 * MIB
        )
        cri.wait_exited(cri.run_container(pod, hog, config))
        with pytest.raises(Exception, match="does not exist"):
            cri.status("f" * 64)
        samples = parsed(fetch(port))
        cri.remove_pod(pod)
        after = parsed(fetch(port))

    def value(name, scraped=samples, **labels):
        return scraped[name, tuple(sorted(labels.items()))]

    assert value("noded_rpc_handled_total", method="RunPodSandbox", code="OK") == 1
    assert value("noded_rpc_handled_total", method="ContainerStatus", code="NOT_FOUND") == 1
    assert value("noded_rpc_seconds_count", method="RunPodSandbox") == 1
    assert value("noded_rpc_seconds_bucket", method="RunPodSandbox", le="+Inf") == 1
    assert value("noded_image_pulls_total", result="ok") == 1
    assert value("noded_image_pull_bytes_total") > 100_000
    assert value("noded_image_layers_total", source="downloaded") == 1
    assert value("noded_cni_operations_total", operation="ADD", result="ok") == 1
    assert value("noded_cni_operations_total", after, operation="DEL", result="ok") == 1
    assert value("noded_cni_operation_seconds_count", operation="ADD") == 1
    assert value("noded_container_exits_total", reason="OOMKilled") == 1
    assert value("noded_container_oom_kills_total") == 1
    assert value("noded_events_total", object="container", kind="stopped") == 1
    assert value("noded_event_overflows_total") == 0
    assert value("noded_pod_sandboxes", state="READY") == 1
    assert value("noded_containers", state="EXITED") == 1
    assert 10 * MIB < value("process_resident_memory_bytes") < 120 * MIB
    assert value("process_open_fds") > 5


def test_the_progress_of_a_pull_is_in_metrics_and_at_times_in_the_log(tmp_path, counts):
    """Two pulls of one image, whose registry stops in the middle of each layer."""
    image = build([tar([Entry(f"file-{number}", os.urandom(600_000))]) for number in range(3)])
    sizes = {digest: len(image.blobs[digest]) for digest in image.layer_digests}
    port = free_port()
    settings = {"metrics": {"listen": f"127.0.0.1:{port}"}, "images": {"unpack_workers": 2}}
    with (
        SlowRegistry(image) as slow,
        NodedDaemon(tmp_path, settings=settings, insecure=[slow.host]) as daemon,
        daemon.client() as cri,
        ThreadPoolExecutor() as pool,
    ):
        pulls = [pool.submit(cri.pull, f"{slow.host}/{name}") for name in ("a:1", "b:1")]
        watch = cri.admin.WatchPulls(cri.admin_pb.WatchPullsRequest(period_ms=50), timeout=60)
        for answer in watch:
            layers = {layer.digest: layer.done_bytes for pull in answer.pulls for layer in pull.layers}
            if len(layers) == 3 and all(  # the last piece of what came may wait to be written with the next
                done > sizes[digest] // 2 - (64 << 10) for digest, done in layers.items()
            ):
                break
        watch.cancel()
        found = parsed(fetch(port))
        lines = [line for line in daemon.log.read_text().splitlines() if " pulling " in line]
        assert lines == [], "a short pull is not told of"
        if rounds := counts(0, 2):
            wait_for_lines(daemon.log, " pulling ", 2 * rounds, 60)
        slow.go_on.set()
        assert {pull.result(30) for pull in pulls} == {image.id}
        after = parsed(fetch(port))
        lines = [line for line in daemon.log.read_text().splitlines() if " pulling " in line]
    phases = {
        dict(labels)["phase"]: value
        for (name, labels), value in found.items()
        if name == "noded_image_pulling_layers"
    }
    assert {phase: value for phase, value in phases.items() if value} == {"streaming": 2, "downloading": 1}
    received, missing = (found[f"noded_image_{name}", ()] for name in ("pull_bytes_total", "pulling_bytes"))
    assert received == sum(layers.values()), "a layer that both pulls wait for is counted once"
    assert received + missing == sum(sizes.values())
    assert after["noded_image_pull_bytes_total", ()] == sum(sizes.values())
    assert after["noded_image_pulling_bytes", ()] == 0
    assert len(lines) == 2 * rounds
    for line in lines:
        assert all(f"{digest.partition(':')[2][:12]} " in line for digest in sizes)


def test_a_metrics_address_that_is_taken_does_not_keep_the_daemon_from_starting(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with NodedDaemon(tmp_path, settings={"metrics": {"listen": listen}}) as daemon:
            assert "metrics are not served" in daemon.log_text()
