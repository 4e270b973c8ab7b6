"""In-place resize: what the kernel has, what the status says and what a restarted daemon knows agree."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import NodedDaemon

HOST = "registry.example"
MIB = 1 << 20


@pytest.fixture
def broken(tmp_path):
    """A runc that, while the file `break` exists, sets one limit and is killed."""
    script = tmp_path / "runc"
    script.write_text(
        f"""#!/bin/sh
if [ -e {tmp_path}/break ]; then
    case " $* " in *" update "*)
        cat >/dev/null
        while read -r file value; do echo "$value" >"$file"; done <{tmp_path}/break
        kill -KILL $$ ;;
    esac
fi
exec {shutil.which("runc")} "$@"
"""
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return tmp_path / "break"


@pytest.fixture
def daemon(tmp_path, pushed, broken):
    runtimes = {"runc": {"type": "runc", "path": broken.parent / "runc"}}
    with NodedDaemon(
        tmp_path, mirrors={HOST: pushed.host}, insecure=[pushed.host], settings={"runtimes": runtimes}
    ) as running:
        yield running


def limits(identity):
    """The limit files of a container's cgroups, by path."""
    names = ("memory.limit_in_bytes", "memory.max", "cpu.shares", "cpu.weight", "cpu.cfs_quota_us", "cpu.max")
    found = {}
    for directory in Path("/sys/fs/cgroup").rglob(f"*{identity}*"):
        for name in (*names, "memory.memsw.limit_in_bytes", "cpuset.cpus"):
            if (directory / name).exists():
                found[directory / name] = (directory / name).read_text().strip()
    return found


def resize(cri, container, **wanted):
    request = cri.pb.UpdateContainerResourcesRequest(
        container_id=container, linux=cri.pb.LinuxContainerResources(**wanted)
    )
    cri.runtime.UpdateContainerResources(request, timeout=30)


def test_a_resize_that_fails_half_way_changes_nothing(daemon, cri, busybox, broken):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(
        pod,
        cri.container_config("main", busybox, ["sleep", "1000"], memory_bytes=64 * MIB, cpu_shares=256),
        config,
    )
    resize(cri, container, memory_limit_in_bytes=96 * MIB, cpu_quota=20000, cpu_period=100000)
    before, told = limits(container), cri.status(container).resources
    linux = told.linux
    assert (linux.memory_limit_in_bytes, linux.cpu_shares, linux.cpu_quota) == (96 * MIB, 256, 20000)
    assert [
        value for path, value in before.items() if path.name.startswith("memory.") and "sw" not in path.name
    ]
    # Killed when one limit was set already.
    memory = [path for path in before if path.name in ("memory.max", "memory.limit_in_bytes")]
    shares = [path for path in before if path.name in ("cpu.shares", "cpu.weight")]
    broken.write_text(f"{memory[0]} {80 * MIB}\n{shares[0]} 99\n")
    with pytest.raises(grpc.RpcError):
        resize(cri, container, memory_limit_in_bytes=80 * MIB, cpu_shares=99)
    broken.unlink()
    assert limits(container) == before
    assert cri.status(container).resources == told
    # Refused by the kernel: the memory was set before the CPU set.
    with pytest.raises(grpc.RpcError):
        resize(cri, container, memory_limit_in_bytes=128 * MIB, cpuset_cpus="4095")
    assert limits(container) == before
    assert cri.status(container).resources == told
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    assert cri.status(container).resources == told
    assert limits(container) == before
    resize(cri, container, memory_limit_in_bytes=128 * MIB)
    assert cri.status(container).resources.linux.memory_limit_in_bytes == 128 * MIB
    assert limits(container)[memory[0]] == str(128 * MIB)
    # The pod's own: remembered, for kubelet owns the pod's cgroup.
    wanted = cri.pb.LinuxContainerResources(memory_limit_in_bytes=256 * MIB, cpu_shares=512)
    cri.runtime.UpdatePodSandboxResources(
        cri.pb.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=wanted), timeout=30
    )
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    assert cri.status(container).resources.linux.memory_limit_in_bytes == 128 * MIB
    cri.remove_pod(pod)


def test_a_crun_that_refuses_half_of_a_resize_changes_nothing(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, "crun")
    container = cri.run_container(
        pod, cri.container_config("main", busybox, ["sleep", "1000"], memory_bytes=64 * MIB), config
    )
    before, told = limits(container), cri.status(container).resources
    with pytest.raises(grpc.RpcError):
        resize(cri, container, memory_limit_in_bytes=128 * MIB, cpu_shares=99, cpuset_cpus="4095")
    assert limits(container) == before
    assert cri.status(container).resources == told
    cri.remove_pod(pod)
