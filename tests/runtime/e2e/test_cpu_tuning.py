"""Annotations for steady latency on the node's own files: changed while a container lives, and no longer.

CPU frequency governors are tested in tests/unit/host only: virtual machines seldom have any.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import NodedDaemon

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.cpu_count() == 1, reason="needs a CPU that can be spared"),
]

CPU = "1"
LATENCY = Path(f"/sys/devices/system/cpu/cpu{CPU}/power/pm_qos_resume_latency_us")
BALANCE = Path("/sys/fs/cgroup/cpuset/cpuset.sched_load_balance")
MASK = Path("/proc/irq/default_smp_affinity")


@pytest.fixture
def daemon(tmp_path, pushed):
    allowed = {"allowed_annotations": ["cpu-*.crio.io", "irq-load-balancing.crio.io"]}
    with NodedDaemon(
        tmp_path,
        mirrors={"registry.example": pushed.host},
        insecure=[pushed.host],
        settings={"runtimes": {"runc": {"type": "runc"} | allowed, "crun": {"type": "crun"} | allowed}},
    ) as running:
        yield running


def of_cpus() -> tuple[str, str]:
    return LATENCY.read_text().strip(), MASK.read_text().strip()


def interrupts() -> dict[str, int]:
    """Which CPUs serve each interrupt, as bits."""
    found = {}
    for path in Path("/proc/irq").glob("[0-9]*/smp_affinity"):
        with suppress(OSError):
            found[path.parent.name] = int(path.read_text().replace(",", ""), 16)
    return found


def movable(masks: dict[str, int]) -> set[str]:
    """Interrupts that the kernel lets others move: writing what is there already tells."""
    found = set()
    for number, mask in masks.items():
        with suppress(OSError):
            Path(f"/proc/irq/{number}/smp_affinity").write_text(f"{mask:x}")
            found.add(number)
    return found


def pod_with(daemon, cri, handler, **annotations):
    pod = daemon.pod_config(cri)
    pod.annotations.update({f"{name.replace('_', '-')}.crio.io": text for name, text in annotations.items()})
    return pod, cri.run_pod(pod, handler)


def config_of(cri, image, *command):
    config = cri.container_config("main", image, command)
    config.linux.resources.cpuset_cpus = CPU
    config.linux.resources.cpu_shares = 1024
    config.linux.resources.cpu_quota = config.linux.resources.cpu_period = 100_000
    return config


def test_cpus_are_tuned_while_the_container_lives_whatever_happens_to_the_daemon(
    daemon, cri, busybox, handler
):
    if not LATENCY.exists():
        pytest.skip(f"this kernel has no {LATENCY}")
    before, served = of_cpus(), interrupts()
    can_move = movable(served)
    asked = {"cpu_c_states": "max_latency:10", "cpu_quota": "disable", "irq_load_balancing": "disable"}
    if BALANCE.exists():  # cgroup v1
        asked["cpu_load_balancing"] = "disable"
    pod, sandbox = pod_with(daemon, cri, handler, **asked)
    container = cri.run_container(sandbox, config_of(cri, busybox, "sleep", "1000"), pod)
    latency, mask = of_cpus()
    assert latency == "10"
    assert int(mask, 16) == int(before[1], 16) & ~(1 << int(CPU))
    now = interrupts()
    assert [number for number in can_move & now.keys() if now[number] >> int(CPU) & 1] == []
    script = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
    assert cri.exec(container, "/bin/sh", "-c", script).stdout.strip() in (b"-1", b"max")
    if BALANCE.exists():
        assert cri.exec(container, "cat", str(BALANCE)).stdout == b"0\n"
    pid = json.loads(cri.verbose_status(container).info["info"])["pid"]
    daemon.kill()
    assert of_cpus() == (latency, mask)
    process = os.pidfd_open(pid)
    os.kill(pid, 9)
    os.close(process)
    daemon.start()
    cri.wait_exited(container)
    assert of_cpus() == before
    after = interrupts()
    assert {number: after[number] for number in can_move & after.keys()} == {
        number: served[number] for number in can_move & after.keys()
    }
    cri.remove_pod(sandbox)
    assert of_cpus() == before


def test_a_container_that_cannot_be_tuned_is_refused_and_leaves_nothing(daemon, cri, busybox, handler):
    before = of_cpus() if LATENCY.exists() else ()
    pod, sandbox = pod_with(
        daemon, cri, handler, irq_load_balancing="disable", cpu_freq_governor="absent_governor"
    )
    with pytest.raises(grpc.RpcError, match="annotation cpu-freq-governor: this node"):
        cri.run_container(sandbox, config_of(cri, busybox, "sleep", "1000"), pod)
    assert (of_cpus() if LATENCY.exists() else ()) == before
    shared = config_of(cri, busybox, "sleep", "1000")
    shared.linux.resources.cpu_shares = 100
    cri.run_container(sandbox, shared, pod)  # its CPU is not its own: nothing is to be tuned
    assert (of_cpus() if LATENCY.exists() else ()) == before
