"""Adjustments of plugins: put together, and applied to a spec."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.config import NriConfig
from noded.errors import FailedPrecondition
from noded.model.pod import HugepageLimit, Resources
from noded.nri.adjust import adjusted
from noded.nri.limits import from_cri, from_oci, to_cri, to_oci
from noded.nri.merge import Creation, Updates
from noded.nri.owners import Owners
from noded.nri.rules import check_rules
from noded.proto.nri.pkg.api import v1alpha1 as api

SPEC = {
    "process": {"args": ["sh"], "env": ["PATH=/bin", "A=1", "B=2"], "rlimits": []},
    "mounts": [{"destination": "/proc", "type": "proc"}, {"destination": "/data/x", "source": "/old"}],
    "annotations": {"keep": "1", "go": "2"},
    "linux": {
        "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/ns"}],
        "devices": [{"path": "/dev/old", "type": "c", "major": 1, "minor": 2}],
        "resources": {"devices": [{"allow": False, "access": "rwm"}], "cpu": {"shares": 2, "period": 100}},
        "sysctl": {"a.b": "1"},
    },
}


def apply(**adjust):
    before = copy.deepcopy(SPEC)
    result = adjusted(SPEC, api.ContainerAdjustment(**adjust), swap_accounting=True)
    assert before == SPEC, "the spec that was given is not changed"
    return result


def linux(**adjust):
    return apply(linux=api.LinuxContainerAdjustment(**adjust))["linux"]


def creation():
    return Creation(api.Container(id="c", env=["A=1"]))


def adjusts(**adjust):
    return api.CreateContainerResponse(adjust=api.ContainerAdjustment(**adjust))


def test_no_adjustment_changes_nothing():
    assert apply() == SPEC


def test_environment_keeps_its_order_and_new_variables_follow():
    env = [api.KeyValue(key="A", value="x"), api.KeyValue(key="-B"), api.KeyValue(key="N", value="n=m")]
    assert apply(env=env)["process"]["env"] == ["PATH=/bin", "A=x", "N=n=m"]


def test_mounts_are_replaced_removed_and_sorted_parents_first():
    mounts = [
        api.Mount(destination="/data/x/", source="/new", options=["rbind", "rshared"]),
        api.Mount(destination="/data", source="/d", type="bind", options=["bind"]),
        api.Mount(destination="-/proc"),
    ]
    result = apply(mounts=mounts)
    assert [one["destination"] for one in result["mounts"]] == ["/data", "/data/x"]
    assert result["mounts"][1]["source"] == "/new"
    assert result["mounts"][1]["type"] == "bind"
    assert result["linux"]["rootfsPropagation"] == "shared"


def test_devices_bring_their_rule():
    device = api.LinuxDevice(
        path="/dev/new", type="c", major=5, minor=6, file_mode=api.OptionalFileMode(value=0o600)
    )
    result = linux(devices=[device, api.LinuxDevice(path="-/dev/old")])
    assert result["devices"] == [{"path": "/dev/new", "type": "c", "major": 5, "minor": 6, "fileMode": 0o600}]
    rule = {"allow": True, "type": "c", "major": 5, "minor": 6, "access": "rwm"}
    assert result["resources"]["devices"][-1] == rule


def test_everything_else_lands_where_the_runtime_specification_has_it():
    result = apply(
        annotations={"-go": "", "new": "3"},
        args=["sleep"],
        hooks=api.Hooks(create_runtime=[api.Hook(path="/h", timeout=api.OptionalInt(value=5))]),
        rlimits=[api.PosixRlimit(type="RLIMIT_CORE", soft=1, hard=2)],
        linux=api.LinuxContainerAdjustment(
            oom_score_adj=api.OptionalInt(value=0),
            io_priority=api.LinuxIoPriority(class_=api.IoPrioClass.BE, priority=4),
            scheduler=api.LinuxScheduler(policy=api.LinuxSchedulerPolicy.SCHED_BATCH, nice=3),
            seccomp_policy=api.LinuxSeccomp(
                default_action="SCMP_ACT_ALLOW",
                syscalls=[
                    api.LinuxSyscall(
                        names=["kill"], action="SCMP_ACT_ERRNO", errno_ret=api.OptionalUInt32(value=1)
                    )
                ],
            ),
            namespaces=[api.LinuxNamespace(type="-pid"), api.LinuxNamespace(type="network", path="/n")],
            sysctl={"-a.b": "", "c.d": "2"},
            net_devices={"eth7": api.LinuxNetDevice(name="in0")},
            memory_policy=api.LinuxMemoryPolicy(mode=api.MpolMode.MPOL_BIND, nodes="0"),
            rdt=api.LinuxRdt(clos_id=api.OptionalString(value="gold")),
        ),
    )
    assert result["annotations"] == {"keep": "1", "new": "3"}
    process, got = result["process"], result["linux"]
    assert process["args"] == ["sleep"]
    assert process["rlimits"] == [{"type": "RLIMIT_CORE", "hard": 2, "soft": 1}]
    assert process["oomScoreAdj"] == 0
    assert process["ioPriority"] == {"class": "IOPRIO_CLASS_BE", "priority": 4}
    assert process["scheduler"] == {"policy": "SCHED_BATCH", "nice": 3}
    assert result["hooks"] == {"createRuntime": [{"path": "/h", "timeout": 5}]}
    assert got["seccomp"] == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    assert got["namespaces"] == [{"type": "network", "path": "/n"}]
    assert got["sysctl"] == {"c.d": "2"}
    assert got["netDevices"] == {"eth7": {"name": "in0"}}
    assert got["memoryPolicy"] == {"mode": "MPOL_BIND", "nodes": "0"}
    assert got["intelRdt"] == {"closID": "gold"}


def test_limits_change_only_what_is_said_and_memory_brings_swap():
    resources = api.LinuxResources(
        cpu=api.LinuxCpu(shares=api.OptionalUInt64(value=9), cpus="0-1"),
        memory=api.LinuxMemory(limit=api.OptionalInt64(value=1 << 20)),
        pids=api.LinuxPids(limit=7),
    )
    got = linux(resources=resources)["resources"]
    assert got["cpu"] == {"shares": 9, "period": 100, "cpus": "0-1"}
    assert got["memory"] == {"limit": 1 << 20, "swap": 1 << 20}
    assert got["pids"] == {"limit": 7}
    assert "swap" not in to_oci(resources, swap_accounting=False)["memory"]


@pytest.mark.parametrize(
    "wanted",
    [
        {"resources": api.LinuxResources(blockio_class=api.OptionalString(value="fast"))},
        {"resources": api.LinuxResources(rdt_class=api.OptionalString(value="gold"))},
        {"namespaces": [api.LinuxNamespace(type="weird")]},
        {"io_priority": api.LinuxIoPriority(class_=api.IoPrioClass(9))},
        {"scheduler": api.LinuxScheduler(policy=api.LinuxSchedulerPolicy(99))},
    ],
)
def test_what_cannot_be_applied_is_refused(wanted):
    with pytest.raises(FailedPrecondition, match="an NRI plugin"):
        linux(**wanted)


keys = st.sampled_from(["A", "B", "C"])
wishes = st.lists(st.tuples(st.booleans(), keys, st.text("xyz", max_size=2)), max_size=4)


@given(st.lists(wishes, max_size=3))
def test_what_the_next_plugin_is_shown_is_what_the_container_gets(plugins):
    """Whatever plugins set and take away, the last view and the adjusted spec have the same variables."""
    made = creation()
    for number, wanted in enumerate(plugins):
        env = [api.KeyValue(key=f"-{key}" if gone else key, value=value) for gone, key, value in wanted]
        try:
            made.add(f"{number:02}-p", adjusts(env=env))
        except FailedPrecondition:
            return
    spec = adjusted({"process": {"env": ["A=1"]}}, made.adjust, swap_accounting=True)
    assert sorted(spec["process"]["env"]) == sorted(made.container.env)


def test_two_plugins_must_not_set_the_same_but_may_set_different_things():
    made = creation()
    made.add("10-a", adjusts(env=[api.KeyValue(key="X", value="1")], annotations={"a": "1"}))
    made.add("20-b", adjusts(env=[api.KeyValue(key="Y", value="2")], args=["x"]))
    with pytest.raises(FailedPrecondition, match="10-a and 30-c both set annotations 'a'"):
        made.add("30-c", adjusts(annotations={"a": "2"}))
    with pytest.raises(FailedPrecondition, match="20-b and 30-c both set args"):
        made.add("30-c", adjusts(args=["y"]))
    made.add("40-d", adjusts(args=["", "z"]))
    assert made.adjust.args == ["z"]
    owners = made.owners.message().owners["c"]
    assert owners.simple[7] == "40-d"
    assert owners.compound[6].owners == {"X": "10-a", "Y": "20-b"}


def update(container_id, ignore=False, **cpu):
    resources = api.LinuxResources(cpu=api.LinuxCpu(**cpu))
    return api.ContainerUpdate(
        container_id=container_id,
        linux=api.LinuxContainerUpdate(resources=resources),
        ignore_failure=ignore,
    )


def test_updates_of_one_container_are_merged_and_contradictions_refused_unless_ignored():
    updates = Updates(Owners(), forbidden="new")
    updates.add("10-a", [update("x", cpus="0")])
    updates.add("20-b", [update("x", mems="1")])
    updates.add("30-c", [update("x", ignore=True, cpus="7")])
    (merged,) = updates.by_id.values()
    assert (merged.linux.resources.cpu.cpus, merged.linux.resources.cpu.mems) == ("0", "1")
    assert not merged.ignore_failure
    with pytest.raises(FailedPrecondition, match="10-a and 40-d"):
        updates.add("40-d", [update("x", cpus="3")])
    with pytest.raises(FailedPrecondition, match="being created"):
        updates.add("10-a", [update("new", cpus="0")])


@given(
    st.builds(
        Resources,
        cpu_period_us=st.integers(0, 10**6),
        cpu_quota_us=st.integers(-1, 10**6),
        cpu_shares=st.integers(0, 262144),
        memory_limit_bytes=st.integers(0, 1 << 40),
        memory_swap_limit_bytes=st.integers(-1, 1 << 40),
        cpuset_cpus=st.sampled_from(["", "0", "0-3"]),
        cpuset_mems=st.sampled_from(["", "0"]),
        hugepage_limits=st.sampled_from([(), (HugepageLimit("2MB", 4),)]),
        unified=st.sampled_from([{}, {"memory.high": "1"}]),
    )
)
def test_the_limits_of_the_cri_survive_the_way_to_plugins_and_back(resources):
    limits = from_cri(resources)
    assert to_cri(limits) == resources
    again = from_oci(to_oci(limits, swap_accounting=True))
    assert again.cpu == limits.cpu
    assert again.unified == limits.unified


@pytest.mark.parametrize(
    ("key", "adjust"),
    [
        ("reject_hooks", {"hooks": api.Hooks(poststop=[api.Hook(path="/x")])}),
        ("reject_seccomp", {"linux": api.LinuxContainerAdjustment(seccomp_policy=api.LinuxSeccomp())}),
        (
            "reject_namespaces",
            {"linux": api.LinuxContainerAdjustment(namespaces=[api.LinuxNamespace(type="pid")])},
        ),
        ("reject_sysctls", {"linux": api.LinuxContainerAdjustment(sysctl={"a": "b"})}),
    ],
)
def test_the_administrator_can_forbid_kinds_of_adjustments(key, adjust):
    made = creation()
    made.add("10-a", adjusts(**adjust))
    check_rules(NriConfig(), made, {"a"})
    with pytest.raises(FailedPrecondition, match=key):
        check_rules(NriConfig(**{key: True}), made, {"a"})


def test_a_required_plugin_must_be_there():
    rules = NriConfig(required_plugins=("guard",))
    check_rules(rules, creation(), {"guard"})
    with pytest.raises(FailedPrecondition, match="'guard' is not connected"):
        check_rules(rules, creation(), {"other"})
