"""Limits: what a runtime is told, and what an update leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import HOST, HYBRID, RESOURCES

from noded.model.pod import HugepageLimit, Resources
from noded.spec.resources import linux_resources, merge_resources, oom_score_adj, update_resources

LIMITED = replace(HOST, may_lower_oom_score_adj=False, oom_score_adj=-100)


def test_nothing_asked_is_nothing_set():
    assert linux_resources(None, HOST).value == {}
    assert linux_resources(Resources(), HOST).value == {}


def test_a_memory_limit_alone_keeps_the_container_out_of_swap():
    assert linux_resources(Resources(memory_limit_bytes=5), HOST).value == {"memory": {"limit": 5, "swap": 5}}
    assert linux_resources(Resources(memory_limit_bytes=5), HYBRID).value == {"memory": {"limit": 5}}


def test_a_limit_that_the_node_cannot_enforce_is_told():
    built = linux_resources(RESOURCES, HYBRID)
    assert "hugepageLimits" not in built.value
    assert [warning.split(":")[0] for warning in built.warnings] == [
        "the node does not account swap",
        "the node has no hugetlb cgroup controller",
    ]
    nothing_granted = Resources(hugepage_limits=(HugepageLimit("2MB", 0),))
    assert linux_resources(nothing_granted, HYBRID).warnings == ()


@pytest.mark.parametrize(("asked", "given_"), [(-998, -100), (-100, -100), (0, 0), (1000, 1000)])
def test_oom_score_adj_is_raised_to_what_the_daemon_may_set(asked, given_):
    built = oom_score_adj(asked, LIMITED)
    assert built.value == {"oomScoreAdj": given_}
    assert bool(built.warnings) == (asked != given_)
    assert oom_score_adj(asked, HOST) == ({"oomScoreAdj": asked}, ())


def test_an_update_names_only_what_changes():
    assert update_resources(Resources(cpu_shares=7), HOST, current=RESOURCES) == {"cpu": {"shares": 7}}
    assert update_resources(Resources(), HOST, current=RESOURCES) == {}


def test_an_update_of_memory_keeps_the_swap_limit_that_was_set():
    changed = update_resources(Resources(memory_limit_bytes=200 << 20), HOST, current=RESOURCES)
    assert changed == {"memory": {"limit": 200 << 20, "swap": 256 << 20}}
    assert update_resources(Resources(memory_limit_bytes=9), HOST) == {"memory": {"limit": 9, "swap": 9}}


def test_merged_limits_are_the_changed_ones_over_the_others():
    changes = Resources(
        cpu_shares=9,
        unified={"memory.high": "1"},
        hugepage_limits=(HugepageLimit("2MB", 0), HugepageLimit("64KB", 1)),
    )
    merged = merge_resources(RESOURCES, changes)
    assert merged == replace(
        RESOURCES,
        cpu_shares=9,
        unified={"memory.high": "1", "memory.min": "0"},
        hugepage_limits=(HugepageLimit("1GB", 0), HugepageLimit("2MB", 0), HugepageLimit("64KB", 1)),
    )
    assert merge_resources(None, changes) is changes


numbers = st.integers(-1, 2**40)
limits = st.builds(
    Resources,
    cpu_period_us=numbers,
    cpu_quota_us=numbers,
    cpu_shares=numbers,
    memory_limit_bytes=numbers,
    memory_swap_limit_bytes=numbers,
    unified=st.dictionaries(st.sampled_from(["memory.high", "io.max"]), st.text(max_size=3)),
)


@given(limits, limits)
def test_updating_twice_is_updating_with_the_merged_limits(current, changes):
    merged = merge_resources(current, changes)
    assert merge_resources(merged, changes) == merged
    whole = linux_resources(merged, HOST).value
    for group, value in update_resources(changes, HOST, current=current).items():
        assert value.items() <= whole[group].items()
