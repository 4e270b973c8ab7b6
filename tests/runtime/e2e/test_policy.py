"""What the administrator decides for containers, and pods ask for by annotation, seen from inside."""

from __future__ import annotations

import json
import os
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root

BASE = {
    "process": {
        "args": ["no-such-program"],
        "env": ["FROM_BASE=yes", "FROM_NODE=no"],
        "rlimits": [{"type": "RLIMIT_MSGQUEUE", "soft": 4444, "hard": 5555}],
    },
    "mounts": [{"destination": "/base", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}],
    "linux": {"resources": {"pids": {"limit": 5}, "hugepageLimits": []}},
}


ZONE = "Etc/GMT-5" if Path("/usr/share/zoneinfo/Etc/GMT-5").exists() else ""
BLOCKIO = """
Classes:
  slow:
    - Devices:
        - /dev/[svhx]*
        - /dev/nvme*
        - /dev/loop*
      ThrottleReadBps: 77G
"""


@pytest.fixture
def daemon(tmp_path, pushed):
    base = tmp_path / "base.json"
    base.write_text(json.dumps(BASE))
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/token").write_text("s3cret")
    (tmp_path / "blockio.yaml").write_text(BLOCKIO)
    (tmp_path / "mounts.conf").write_text(f"{tmp_path}/secrets:/run/secrets\n{tmp_path}/absent:/mnt\n")
    handler = {
        "allowed_annotations": [
            "umask.*", "devices.*", "cgroup2-*", "shm-size.crio.io", "link-logs.*", "cpu-shared.*",
        ],
        "base_spec": str(base),
        "default_sysctls": {"net.ipv4.ip_local_port_range": "2000 2999", "kernel.shmmni": "77"},
    }  # fmt: skip
    with NodedDaemon(
        tmp_path,
        mirrors={"registry.example": pushed.host},
        insecure=[pushed.host],
        settings={
            "default_env": {"FROM_NODE": "yes", "PATH": "/hidden-by-the-image"},
            # not nofile: Go programs such as runc raise its soft limit, and may lose the race to restore it
            "default_ulimits": {"core": "111:222"},
            "pids_limit": 77,
            "default_sysctls": {"kernel.shmmni": "55", "kernel.shmall": "5555"},
            "default_mounts_file": str(tmp_path / "mounts.conf"),
            "shared_cpuset": "1",
            "blockio_config_file": str(tmp_path / "blockio.yaml"),
            "infra_ctr_cpuset": "0",
            "timezone": ZONE,
            "workloads": {
                "management": {
                    "activation_annotation": "target.workload/management",
                    "annotation_prefix": "resources.workload",
                    "allowed_annotations": ["org.opencontainers.image.stopSignal"],
                    "resources": {"cpushares": 77, "cpuset": "0"},
                }
            },
            "minimum_memory_bytes": 12 << 20,
            "absent_mount_sources_to_reject": [str(tmp_path / "absent")],
            "runtimes": {"runc": {"type": "runc"} | handler, "crun": {"type": "crun"} | handler},
        },
    ) as running:
        yield running


def test_the_nodes_policy_and_allowed_annotations_reach_the_container(
    daemon, cri, busybox, handler, tmp_path
):
    pod = daemon.pod_config(cri)
    pod.annotations.update(
        {
            "umask.crio.io": "027",
            "devices.noded.io/main": "/dev/fuse:/dev/mine:rw",
            "unified-cgroup.crio.io": "pids.max=1",
        }
    )
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", busybox, ["sleep", "1000"])
    container = cri.run_container(sandbox, config, pod)
    script = (
        "umask; "
        "grep Umask /proc/1/status; grep core /proc/1/limits; echo $FROM_NODE; stat -c %t:%T /dev/mine; "
        "cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
    )
    answer = cri.exec(container, "/bin/sh", "-c", script)
    assert answer.stdout.decode().splitlines() == [
        "0027",
        "Umask:\t0027", "Max core file size        111                  222                  bytes     ",
        "yes", "a:e5", "77",
    ]  # fmt: skip
    assert "annotation unified-cgroup.crio.io is ignored" in daemon.log.read_text()
    config.metadata.attempt = 1
    config.mounts.add(host_path=str(tmp_path / "absent"), container_path="/mnt")
    with pytest.raises(grpc.RpcError, match="absent_mount_sources_to_reject"):
        cri.run_container(sandbox, config, pod)
    assert not (tmp_path / "absent").exists()
    del config.mounts[:]
    config.linux.resources.memory_limit_in_bytes = 1 << 20
    with pytest.raises(grpc.RpcError, match="memory_limit_in_bytes"):
        cri.run_container(sandbox, config, pod)


def test_a_pod_has_the_shared_memory_logs_stop_signal_and_workload_of_its_annotations(
    daemon, cri, busybox, handler, tmp_path
):
    volume = tmp_path / "volumes/kubernetes.io~empty-dir/logs"
    volume.mkdir(parents=True)
    pod = daemon.pod_config(cri)
    pod.annotations.update(
        {
            "shm-size.crio.io": "3Mi",
            "io.kubernetes.cri-o.ShmSize": "5Mi",
            "link-logs.noded.io": "logs",
            "target.workload/management": "",
            "resources.workload/main": '{"cpushares": 99}',
            "org.opencontainers.image.stopSignal": "SIGUSR1",
            "platform-runtime-path.crio.io": "/bin/sh",
        }
    )
    sandbox = cri.run_pod(pod, handler)
    wait_for_signal = "trap 'exit 9' USR1; echo hello; while :; do sleep 0.1; done"
    config = cri.container_config("main", busybox, ["/bin/sh", "-c", wait_for_signal])
    config.mounts.add(host_path=str(volume), container_path="/logs")
    container = cri.run_container(sandbox, config, pod)
    script = (
        "df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2; grep Cpus_allowed_list /proc/1/status; "
        "cat /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight 2>/dev/null; "
        f"until grep -ho hello /logs/logs/{container}; do sleep 0.1; done; touch /logs/logs/x 2>&1"
    )
    answer = cri.exec(container, "/bin/sh", "-c", script)
    size, cpus, weight, hello, refused = answer.stdout.decode().splitlines()
    assert (size, cpus, hello) == ("3072", "Cpus_allowed_list:\t0", "hello")
    assert weight in ("99", "4")  # cgroup v1, v2
    assert "Read-only" in refused
    cri.stop(container, 20)
    assert cri.status(container).exit_code == 9
    link = Path(pod.log_directory) / container
    assert os.readlink(link) == "main.log"
    cri.remove(container)
    assert not link.is_symlink()
    assert (Path(pod.log_directory) / "main.log").exists()
    words = daemon.log.read_text()
    assert "annotation platform-runtime-path.crio.io is ignored" in words
    assert "annotation io.kubernetes.cri-o.ShmSize is ignored" in words


def test_what_the_administrator_adds_is_seen_in_every_container(daemon, cri, busybox, handler, tmp_path):
    pod = daemon.pod_config(cri, pid="POD")
    pod.annotations["cpu-shared.crio.io/main"] = "enable"
    sandbox = cri.run_pod(pod, handler)
    config = cri.container_config("main", busybox, ["sleep", "1000"])
    config.linux.resources.cpuset_cpus = "0"
    config.linux.security_context.namespace_options.pid = 0  # the pod's
    container = cri.run_container(sandbox, config, pod)
    script = (
        "grep msgqueue /proc/self/limits; echo $FROM_BASE $FROM_NODE; cat /run/secrets/token; echo; "
        "(echo x > /run/secrets/token) 2>&1 | grep -c Read-only; "
        "grep -c ' /base tmpfs' /proc/mounts; cd /proc/sys/; "
        "cat net/ipv4/ip_local_port_range kernel/shmmni kernel/shmall; "
        "echo $OPENSHIFT_ISOLATED_CPUS,$OPENSHIFT_SHARED_CPUS; "
        "grep -h Cpus_allowed_list /proc/1/status /proc/self/status; date +%z"
    )
    answer = cri.exec(container, "/bin/sh", "-c", script)
    assert [line.split() for line in answer.stdout.decode().splitlines()] == [
        ["Max", "msgqueue", "size", "4444", "5555", "bytes"], ["yes", "yes"], ["s3cret"], ["1"], ["1"],
        ["2000", "2999"], ["77"], ["5555"], ["0,1"],
        ["Cpus_allowed_list:", "0"], ["Cpus_allowed_list:", "0-1"], ["+0500" if ZONE else "+0000"],
    ]  # fmt: skip
    (tmp_path / "base.json").write_text('{"process": {"rlimit": []}}')
    with pytest.raises(grpc.RpcError, match=r"runtimes\..*base_spec: .*: process.rlimit: not known"):
        cri.run_pod(daemon.pod_config(cri), handler)


def test_classes_of_block_io_reach_the_cgroup_and_absent_ones_are_refused(daemon, cri, busybox, handler):
    pod = daemon.pod_config(cri)
    key = "blockio.resources.beta.kubernetes.io"
    pod.annotations.update({f"{key}/pod": "slow", f"{key}/container.bad": "fast"})
    pod.annotations["rdt.resources.beta.kubernetes.io/container.cached"] = "gold"
    sandbox = cri.run_pod(pod, handler)
    container = cri.run_container(sandbox, cri.container_config("main", busybox, ["sleep", "1000"]), pod)
    script = (
        "cat /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device 2>/dev/null || cat /sys/fs/cgroup/io.max"
    )
    assert b"77000000000" in cri.exec(container, "/bin/sh", "-c", script).stdout
    for name, words in (
        ("bad", "annotation .*/container.bad: there is no class 'fast', but slow"),
        ("cached", "annotation .*/container.cached: .* set rdt_config_file"),
    ):
        with pytest.raises(grpc.RpcError, match=words):
            cri.run_container(sandbox, cri.container_config(name, busybox, ["sleep", "1000"]), pod)
