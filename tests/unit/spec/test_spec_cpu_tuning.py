"""Annotations for steady latency: what is asked, for which CPUs, and what is to be written."""

from __future__ import annotations

import pytest

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.pod import Resources
from noded.spec.cpu_tuning import CpuTuning, FileWrite, TuningPlan, cpu_tuning, tuning_plan, whole_cpus

CPU2 = "sys/devices/system/cpu/cpu2"


def asked(**annotations) -> CpuTuning:
    return cpu_tuning(annotations, "main", ("*",))


def plan(tuning, cpus=(2,), **more) -> TuningPlan:
    places = {"unified": False, "cpuset_cgroup": "cg/cpuset/c", "pod_cpu_cgroup": "cg/cpu/p"}
    return tuning_plan(tuning, frozenset(cpus), **(places | more))


def test_nothing_is_asked_without_annotations():
    assert not asked().wanted
    assert not asked(**{"cpu-manager": "x", "irq-load-balancing.crio.io": "enable"}).wanted


def test_annotations_are_read_as_cri_o_writes_them():
    found = asked(
        **{
            "cpu-load-balancing.crio.io": "disable",
            "cpu-quota.crio.io": "true",
            "irq-load-balancing.crio.io/main": "disable",
            "cpu-c-states.noded.io": "max_latency:10",
            "cpu-freq-governor.crio.io": "performance",
        }
    )
    assert found == CpuTuning(False, False, False, "10", "performance")
    assert asked(**{"cpu-c-states.crio.io": "disable"}).resume_latency == "n/a"
    assert asked(**{"cpu-c-states.crio.io": "max_latency:0"}).resume_latency == "n/a"
    assert asked(**{"cpu-c-states.crio.io": "enable"}).resume_latency == "0"


def test_what_is_not_allowed_does_nothing_and_is_told():
    found = cpu_tuning({"cpu-quota.crio.io": "nonsense"}, "main", ())
    assert not found.wanted
    assert "cpu-quota.crio.io" in found.warnings[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cpu-quota.crio.io", "off"),
        ("cpu-c-states.crio.io", "max_latency:soon"),
        ("cpu-c-states.crio.io", ""),
        ("cpu-freq-governor.crio.io", "../performance"),
    ],
)
def test_a_bad_value_is_refused_with_its_annotation(key, value):
    with pytest.raises(InvalidArgument, match=f"annotation {key}: "):
        asked(**{key: value})


@pytest.mark.parametrize(
    ("cpus", "shares", "whole"),
    [("2-3", 2048, {2, 3}), ("2-3", 2047, set()), ("0-7", 1024, set()), ("", 0, set()), ("", 1024, set())],
)
def test_only_cpus_that_nobody_else_has_are_tuned(cpus, shares, whole):
    assert whole_cpus(Resources(cpuset_cpus=cpus, cpu_shares=shares)) == whole
    assert whole_cpus(None) == frozenset()


def test_the_plan_says_which_files_get_which_values():
    found = plan(CpuTuning(False, False, False, "n/a", "performance"))
    assert found == TuningPlan(
        (
            FileWrite("cg/cpuset/c/cpuset.sched_load_balance", "0", "cpu-load-balancing", restore=False),
            FileWrite("cg/cpu/p/cpu.cfs_quota_us", "-1", "cpu-quota", restore=False),
            FileWrite(f"{CPU2}/power/pm_qos_resume_latency_us", "n/a", "cpu-c-states"),
            FileWrite(
                f"{CPU2}/cpufreq/scaling_governor",
                "performance",
                "cpu-freq-governor",
                choices=f"{CPU2}/cpufreq/scaling_available_governors",
            ),
        ),
        frozenset({2}),
    )


def test_cgroup_v2_takes_the_quota_and_isolates_the_cpus():
    (write,) = plan(CpuTuning(quota=False), unified=True).writes
    assert (write.path, write.value) == ("cg/cpu/p/cpu.max", "max")
    assert plan(CpuTuning(quota=False), pod_cpu_cgroup="").writes == ()
    isolated = TuningPlan(isolated_cgroup="cg/cpuset/c", isolated_cpus=frozenset({2}))
    assert plan(CpuTuning(balanced=False), unified=True) == isolated
    with pytest.raises(FailedPrecondition, match=r"cpu-load-balancing: .*no cpuset controller"):
        plan(CpuTuning(balanced=False), cpuset_cgroup="")
