"""Exec probes for the life of a node: ten thousand leave the daemon as ten did."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from noded.host.processes import children_of

MIB = 1 << 20


def footprint(pid):
    """(resident bytes, descriptors by what they are, names of children) of the daemon."""
    with open(f"/proc/{pid}/status") as status:
        resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    kinds: Counter[str] = Counter()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            kinds[os.readlink(f"/proc/{pid}/fd/{name}").split(":")[0]] += 1
        except FileNotFoundError:
            continue
    children: Counter[str] = Counter()
    for child in children_of(pid):
        try:
            with open(f"/proc/{child}/comm") as comm:
                children[comm.read().strip()] += 1
        except FileNotFoundError:
            continue
    return resident, kinds, children


def settled(pid, least):
    """The footprint once descriptors and children are no more than `least`, or after some seconds."""
    end = time.monotonic() + 10
    while True:
        found = footprint(pid)
        if (found[1].total() <= least[1].total() and found[2] <= least[2]) or time.monotonic() > end:
            return found
        time.sleep(0.05)


def test_probes_leave_no_memory_descriptor_or_process(daemon, cri, busybox, counts, record_property):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "100000"]), config)
    wrong = []

    def probe(number):
        """One of each kind that a kubelet sees: success, failure, output, and now and then a timeout."""
        if number % 100 == 50:
            with pytest.raises(grpc.RpcError) as caught:
                cri.exec(container, "sh", "-c", "sleep 1000 & sleep 1000", seconds=1)
            if caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                wrong.append(caught.value)
            return
        code = number % 3
        answer = cri.exec(container, "sh", "-c", f"echo probe {number}; exit {code}", seconds=30)
        if (answer.exit_code, answer.stdout) != (code, b"probe %d\n" % number):
            wrong.append(answer)

    def probes(first, count):
        with ThreadPoolExecutor(4) as clients:
            list(clients.map(probe, range(first, first + count)))

    probes(0, 60)
    before = settled(daemon.pid, footprint(daemon.pid))
    started = time.monotonic()
    total = counts(150, 10_000)
    probes(100, total)
    seconds = time.monotonic() - started
    after = settled(daemon.pid, before)
    assert not wrong
    figures = {
        "probes": total,
        "seconds": round(seconds, 1),
        "rss_bytes": [before[0], after[0]],
        "descriptors": [before[1].total(), after[1].total()],
        "children": [before[2].total(), after[2].total()],
    }
    record_property("figures", json.dumps(figures))
    print(json.dumps(figures))
    assert after[1].total() <= before[1].total(), (before[1], after[1])
    # Fewer there may be: the unpacker ends when a node has pulled nothing for a minute.
    assert after[2] <= before[2], (before[2], after[2])
    assert after[0] - before[0] < 3 * MIB, figures
    # Killed with the probe that timed out, and not only its own process. (Zombies have no command line.)
    living = cri.exec(container, "sh", "-c", "cat /proc/[0-9]*/cmdline").stdout
    assert b"sleep\x00100000\x00" in living
    assert b"sleep\x001000\x00" not in living
    cri.remove_pod(pod)
