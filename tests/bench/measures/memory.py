"""Resident and proportional set size of the daemon and its helpers; the workload is excluded."""

from __future__ import annotations

from pathlib import Path

from tests.bench.account import program_of, pss_bytes, rss_bytes
from tests.bench.bench import Bench, crowd
from tests.bench.systems import Subject, System
from tests.support.cri_client import Cri

PODS = 20
_WORKLOAD = frozenset({"busybox"})
_MIB = 1 << 20


def run(bench: Bench) -> None:
    for name, factory in bench.factories.items():
        with bench.running(factory, bench.directory) as system:
            with Cri(system.address) as cri:
                cri.pods()
                daemon, _ = pss(system)
                bench.results.add("PSS of daemon, idle", f"{name} runc", daemon / _MIB, unit="MiB")
                resident = sum(map(rss_bytes, _daemon_pids(system)))
                bench.results.add("RSS of daemon, idle", f"{name} runc", resident / _MIB, unit="MiB")
                cri.pull(bench.images.pod)
            subject = Subject(system, "runc")
            with crowd(subject, bench.images.pod, PODS):
                daemon, helpers = pss(system)
            bench.results.add(f"PSS of daemon, {PODS} pods", subject.label, daemon / _MIB, unit="MiB")
            bench.results.add(
                f"PSS of helpers per pod, {PODS} pods", subject.label, helpers / _MIB / PODS, unit="MiB"
            )


def _daemon_pids(system: System) -> list[int]:
    assert system.account is not None
    return [pid for pid in system.account.pids() if program_of(pid) not in system.helpers | _WORKLOAD]


def pss(system: System) -> tuple[int, int]:
    """Bytes of (what is there once, what belongs to pods)."""
    assert system.account is not None
    daemon = helpers = 0
    for pid in system.account.pids():
        program = program_of(pid)
        if program in system.helpers:
            helpers += pss_bytes(pid)
        elif program not in _WORKLOAD and Path(f"/proc/{pid}").exists():
            daemon += pss_bytes(pid)
    return daemon, helpers
