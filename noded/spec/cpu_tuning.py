"""What the annotations of a pod ask of the CPUs that a container has for itself, for steady latency.

As CRI-O's high-performance annotations (`cpu-quota.crio.io` and so on, or `.noded.io`): values are `disable`
(formerly `true`), for idle states also `enable` and `max_latency:MICROSECONDS`, for the governor its name.
They count for containers with whole CPUs of their own, which the kubelet's static CPU manager gives to
Guaranteed pods; other containers of such a pod are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.cpus import parse_cpus
from noded.model.pod import Resources
from noded.spec.feature_keys import asked, not_allowed

_FEATURES: Mapping[str, str] = dict.fromkeys(
    ("cpu-c-states", "cpu-freq-governor", "cpu-load-balancing", "cpu-quota", "irq-load-balancing"), ""
)
_GOVERNOR = re.compile(r"[a-z_]{1,15}")  # CPUFREQ_NAME_LEN
_LATENCY = re.compile(r"max_latency:([0-9]{1,9})", re.ASCII)
_SHARES_OF_A_CPU = 1024
_CPUS = "sys/devices/system/cpu"


@dataclass(frozen=True, slots=True)
class CpuTuning:
    """What a container asks.

    Args:
        balanced: the scheduler balances load over its CPUs.
        quota: the time that it may take is limited.
        interrupts: its CPUs serve interrupts of devices.
        resume_latency: for pm_qos_resume_latency_us of its CPUs, "" = as it is.
        governor: of its CPUs' frequency, "" = as it is.
        warnings: about annotations that do nothing.
    """

    balanced: bool = True
    quota: bool = True
    interrupts: bool = True
    resume_latency: str = ""
    governor: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def wanted(self) -> bool:
        """Whether it asks for anything."""
        plain = self.balanced and self.quota and self.interrupts
        return not plain or bool(self.resume_latency or self.governor)


@dataclass(frozen=True, slots=True)
class FileWrite:
    """A value for a file of the kernel.

    Args:
        path: relative to the root directory.
        annotation: that asks for it.
        restore: the file outlives the container, so it gets its old value back.
        choices: file that lists the values which are possible, "" = unknown.
    """

    path: str
    value: str
    annotation: str
    restore: bool = True
    choices: str = ""


@dataclass(frozen=True, slots=True)
class TuningPlan:
    """What is to be done on the node for one container.

    Args:
        quiet_cpus: get no interrupts of devices.
        isolated_cgroup: directory, relative to the root directory, of the cgroup (v2) that becomes an
            isolated cpuset partition of `isolated_cpus`; "" = none.
    """

    writes: tuple[FileWrite, ...] = ()
    quiet_cpus: frozenset[int] = frozenset()
    isolated_cgroup: str = ""
    isolated_cpus: frozenset[int] = frozenset()


def cpu_tuning(annotations: Mapping[str, str], container: str, patterns: tuple[str, ...]) -> CpuTuning:
    """What a container asks. Raises: InvalidArgument naming an allowed annotation with a bad value."""
    if not any(key.startswith(("cpu-", "irq-")) for key in annotations):
        return CpuTuning()
    found = asked(_FEATURES, annotations, container, patterns)
    return CpuTuning(
        balanced=found.of("cpu-load-balancing", _kept, True),
        quota=found.of("cpu-quota", _kept, True),
        interrupts=found.of("irq-load-balancing", _kept, True),
        resume_latency=found.of("cpu-c-states", _resume_latency, ""),
        governor=found.of("cpu-freq-governor", _governor, ""),
        warnings=not_allowed(found.ignored),
    )


def whole_cpus(resources: Resources | None) -> frozenset[int]:
    """The CPUs that a container has for itself, none if it shares any."""
    if resources is None:
        return frozenset()
    cpus = parse_cpus(resources.cpuset_cpus, "linux.resources.cpuset_cpus")
    return cpus if resources.cpu_shares == len(cpus) * _SHARES_OF_A_CPU else frozenset()


def tuning_plan(
    tuning: CpuTuning,
    cpus: frozenset[int],
    *,
    unified: bool,
    cpuset_cgroup: str,
    pod_cpu_cgroup: str,
) -> TuningPlan:
    """What to write for a container.

    Args:
        cpus: of its own.
        unified: the node uses cgroup v2.
        cpuset_cgroup, pod_cpu_cgroup: directories of the container's cgroup with the cpuset controller and
            of its pod's with the cpu controller, relative to the root directory; "" = there is none.

    Raises: FailedPrecondition for what this node cannot do.
    """
    writes: list[FileWrite] = []
    isolated = ""
    if not tuning.balanced:
        if not cpuset_cgroup:
            raise FailedPrecondition("annotation cpu-load-balancing: this node has no cpuset controller")
        if unified:
            isolated = cpuset_cgroup
        else:
            path = f"{cpuset_cgroup}/cpuset.sched_load_balance"
            writes.append(FileWrite(path, "0", "cpu-load-balancing", restore=False))
    if not tuning.quota and pod_cpu_cgroup:
        # The container's own quota is in its spec. The pod's goes with the pod.
        name, value = ("cpu.max", "max") if unified else ("cpu.cfs_quota_us", "-1")
        writes.append(FileWrite(f"{pod_cpu_cgroup}/{name}", value, "cpu-quota", restore=False))
    for cpu in sorted(cpus):
        if tuning.resume_latency:
            path = f"{_CPUS}/cpu{cpu}/power/pm_qos_resume_latency_us"
            writes.append(FileWrite(path, tuning.resume_latency, "cpu-c-states"))
        if tuning.governor:
            scaling = f"{_CPUS}/cpu{cpu}/cpufreq/scaling"
            writes.append(
                FileWrite(
                    f"{scaling}_governor",
                    tuning.governor,
                    "cpu-freq-governor",
                    choices=f"{scaling}_available_governors",
                )
            )
    quiet = frozenset() if tuning.interrupts else cpus
    return TuningPlan(tuple(writes), quiet, isolated, cpus if isolated else frozenset())


def _kept(text: str) -> bool:
    if text not in ("disable", "true", "enable", "false"):
        raise InvalidArgument(f"{text!r} is neither disable nor enable")
    return text in ("enable", "false")  # true: the feature of taking it away, as it was once written


def _resume_latency(text: str) -> str:
    if text == "enable":
        return "0"
    if text == "disable":
        return "n/a"
    found = _LATENCY.fullmatch(text)
    if not found:
        raise InvalidArgument(f"{text!r} is none of enable, disable and max_latency:MICROSECONDS")
    return str(int(found[1])) if int(found[1]) else "n/a"  # 0 means no limit to the kernel


def _governor(text: str) -> str:
    if not _GOVERNOR.fullmatch(text):
        raise InvalidArgument(f"{text!r} is not the name of a governor")
    return text
