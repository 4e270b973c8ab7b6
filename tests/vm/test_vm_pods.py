"""Pods under systemd with cgroup v2."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.vm.node import CGROUPS, IMAGE, Node


def test_the_package_starts_the_daemon_that_tells_systemd_when_it_is_ready(node: Node) -> None:
    assert node.property("Type") == "notify"
    assert node.property("ActiveState") == "active"
    assert node.property("SubState") == "running"
    status = node.cri.runtime.Status(node.cri.pb.StatusRequest(verbose=True), timeout=120)
    conditions = {condition.type: condition.status for condition in status.status.conditions}
    assert conditions["RuntimeReady"], status
    assert conditions["NetworkReady"], status


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_pod_runs_in_a_scope_of_systemd(node: Node, handler: str) -> None:
    pod_id, config = node.run_pod(handler)
    container = node.cri.container_config("main", IMAGE, ["sleep", "1000"], memory_bytes=64 << 20)
    container.linux.resources.cpu_quota = 50_000
    container.linux.resources.cpu_period = 100_000
    container.linux.resources.cpu_shares = 512
    container_id = node.cri.run_container(pod_id, container, config)
    cgroup = node.cgroup(container_id)
    assert f"/kubepods.slice/kubepods-burstable.slice/noded-{container_id}.scope" in cgroup
    assert node.guest.read(f"{cgroup}/memory.max").strip() == str(64 << 20)
    assert node.guest.read(f"{cgroup}/cpu.max").split() == ["50000", "100000"]
    assert node.property("ActiveState", f"noded-{container_id}.scope") == "active"
    assert node.output(container_id, "cat", "/proc/self/cgroup").strip() == "0::/"
    node.cri.remove_pod(pod_id)
    assert node.guest.run("sh", "-c", f"ls -d {cgroup}", status=None).endswith("No such file or directory\n")


def test_a_container_over_its_memory_limit_is_reported_as_oom_killed(node: Node) -> None:
    pod_id, config = node.run_pod()
    script = "x=a; while true; do x=$x$x; done"
    container = node.cri.container_config("eater", IMAGE, ["sh", "-c", script], memory_bytes=32 << 20)
    status = node.wait_exited(node.cri.run_container(pod_id, container, config))
    assert (status.reason, status.exit_code) == ("OOMKilled", 137), status


def test_stats_are_those_of_the_container_cgroup(node: Node) -> None:
    pod_id, config = node.run_pod()
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done; exec sleep 1000"
    container_id = node.cri.run_container(
        pod_id, node.cri.container_config("main", IMAGE, ["sh", "-c", script], memory_bytes=64 << 20), config
    )
    cgroup = node.cgroup(container_id)
    request = node.cri.pb.ContainerStatsRequest(container_id=container_id)
    stats = node.cri.runtime.ContainerStats(request, timeout=120).stats
    assert stats.cpu.usage_core_nano_seconds.value > 0, stats
    current = int(node.guest.read(f"{cgroup}/memory.current"))
    assert 0 < stats.memory.usage_bytes.value <= 64 << 20
    assert 0 < current <= 64 << 20


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_container_gets_no_more_huge_pages_than_its_limit(node: Node, handler: str) -> None:
    node.guest.shell(
        "mkdir -p /var/tmp/huge; findmnt /var/tmp/huge || "
        "mount -t hugetlbfs -o pagesize=2M hugetlbfs /var/tmp/huge"  # as kubelet does for an emptyDir
    )
    pod_id, config = node.run_pod(handler)
    container = node.cri.container_config(
        "main", IMAGE, ["sleep", "1000"], mounts=[("/var/tmp/huge", "/huge")]
    )
    limit = container.linux.resources.hugepage_limits.add()
    limit.page_size, limit.limit = "2MB", 4 << 20
    container_id = node.cri.run_container(pod_id, container, config)
    inside = node.guest.read(f"/proc/{node.container_pid(container_id)}/cgroup").strip().removeprefix("0::")
    # crun limits the cgroup of the processes, which is below the scope that runc limits.
    assert node.guest.read(f"{CGROUPS}{inside}/hugetlb.2MB.max").strip() == str(4 << 20)
    try:
        node.output(container_id, "fallocate", "-l", str(4 << 20), "/huge/within")
        beyond = node.cri.exec(container_id, "fallocate", "-l", str(2 << 20), "/huge/beyond")
        assert beyond.exit_code != 0, "the kernel gave more huge pages than the limit"
        assert int(node.guest.read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")) > 1
    finally:
        node.guest.shell("rm -f /var/tmp/huge/*")


def _userns_pod(node: Node) -> tuple[Any, Any]:
    pb = node.cri.pb
    config = node.cri.pod_config(
        log_directory="/var/log/pods/userns", cgroup_parent="kubepods-burstable.slice"
    )
    mapping = pb.IDMapping(host_id=1_000_000, container_id=0, length=65536)
    userns = pb.UserNamespace(mode=pb.POD, uids=[mapping], gids=[mapping])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    return config, userns


def _maps_users(node: Node, handler: str) -> bool:
    status = node.cri.runtime.Status(node.cri.pb.StatusRequest(), timeout=120)
    return next(one.features.user_namespaces for one in status.runtime_handlers if one.name == handler)


def test_a_pod_in_its_own_user_namespace_has_mapped_users_and_files(node: Node) -> None:
    assert _maps_users(node, "crun")
    config, userns = _userns_pod(node)
    pod_id = node.cri.run_pod(config, "crun")
    container = node.cri.container_config("main", IMAGE, ["sleep", "1000"])
    container.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    container_id = node.cri.run_container(pod_id, container, config)
    assert node.output(container_id, "cat", "/proc/self/uid_map").split() == ["0", "1000000", "65536"]
    owner = node.guest.run("stat", "-c", "%u", f"/proc/{node.container_pid(container_id)}").strip()
    assert owner == "1000000"
    assert node.output(container_id, "stat", "-c", "%u", "/bin/busybox").strip() == "0"


def test_a_runtime_that_cannot_map_users_refuses_such_a_pod(node: Node) -> None:
    if _maps_users(node, "runc"):
        pytest.skip("THIS GUEST'S runc MAPS USERS: there is nothing to refuse")
    config, _ = _userns_pod(node)
    with pytest.raises(grpc.RpcError, match="user namespace"):
        node.cri.run_pod(config, "runc")
    assert not node.cri.pods()
