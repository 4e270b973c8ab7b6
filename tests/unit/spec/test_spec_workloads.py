"""Workloads: who belongs to one, what its containers get, and what a pod may change of that."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded import config_text, settings, tables
from noded.config import WorkloadConfig, WorkloadResources
from noded.errors import InvalidArgument
from noded.model.cpus import format_cpus, parse_cpus
from noded.model.pod import Resources
from noded.spec.workloads import with_workload, workload_of, workload_resources

GIVEN = WorkloadResources(cpushares=20, cpuset="0-1")
MANAGEMENT = WorkloadConfig("target.workload/management", "resources.workload", ("umask.*",), GIVEN)
TOML = """
[workloads.management]
activation_annotation = "target.workload/management"
annotation_prefix = "resources.workload"
allowed_annotations = ["umask.*"]
resources = { cpushares = 20, cpuset = "0-1" }
"""


def configured(text: str):
    return settings.interpret(tables.parse(text, "noded.toml"))


def test_a_workload_is_configured_as_in_cri_o():
    config = configured(TOML)
    assert config.workloads == {"management": MANAGEMENT}
    assert configured(config_text.render(config)) == config


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[workloads.a]\nannotation_prefix = "x"', "workloads.a.activation_annotation is missing"),
        ('[workloads.a]\nactivation_annotation = ""', "workloads.a.activation_annotation: must not be empty"),
        (
            '[workloads.a]\nactivation_annotation = "x"\n[workloads.b]\nactivation_annotation = "x"',
            "workloads.b.activation_annotation: workloads.a has 'x' already",
        ),
        ('[workloads.a]\nactivation_annotation = "x"\nresources.cpuset = "3-1"', "resources.cpuset: '3-1'"),
        (
            '[workloads.a]\nactivation_annotation = "x"\nresources = {cpulimit = 1, cpuquota = 1000}',
            "exclude each other",
        ),
        ('[workloads.a]\nactivation_annotation = "x"\nresources.memory = 1', "unknown key .*memory"),
    ],
)
def test_a_workload_that_cannot_be_meant_is_refused_by_the_name_of_its_key(text, words):
    with pytest.raises(InvalidArgument, match=words):
        configured(text)


def test_a_pod_belongs_to_the_workload_whose_annotation_it_has():
    workloads = {"b": MANAGEMENT, "a": WorkloadConfig("other")}
    assert workload_of(workloads, {"target.workload/management": ""}) is MANAGEMENT
    assert workload_of(workloads, {"target.workload/management": "", "other": "x"}) is workloads["a"]
    assert workload_of(workloads, {"resources.workload/main": "{}"}) is None


def test_a_pod_overrides_single_resources_of_a_container():
    def of(**annotations):
        return workload_resources(MANAGEMENT, annotations, "main")

    assert of() == GIVEN
    assert of(**{"resources.workload/other": '{"cpushares": 5}'}) == GIVEN
    assert of(**{"resources.workload/main": '{"cpushares": 5}'}) == WorkloadResources(5, "0-1")
    assert of(**{"resources.workload/main": '{"cpulimit": "1500", "cpuset": ""}'}) == WorkloadResources(
        20, "0-1", cpulimit=1500
    )
    assert of(**{"resources.workload.cpuset/main": "3"}) == WorkloadResources(20, "3")
    for key, value, words in (
        ("resources.workload/main", "[]", "not a JSON object"),
        ("resources.workload/main", "{", "not JSON"),
        ("resources.workload/main", '{"memory": 1}', "unknown resource 'memory'"),
        ("resources.workload/main", '{"cpushares": true}', "not a number"),
        ("resources.workload/main", '{"cpushares": -5}', "not a number"),
        ("resources.workload.cpuset/main", "x", "not a list of CPUs"),
    ):
        with pytest.raises(InvalidArgument, match=words) as caught:
            of(**{key: value})
        assert key in str(caught.value)


def test_the_resources_of_a_workload_replace_those_asked_for():
    asked = Resources(cpu_shares=2, cpu_quota_us=50_000, cpu_period_us=200_000, memory_limit_bytes=5)
    assert with_workload(asked, GIVEN) == Resources(
        cpu_shares=20, cpu_quota_us=50_000, cpu_period_us=200_000, memory_limit_bytes=5, cpuset_cpus="0-1"
    )
    assert with_workload(asked, WorkloadResources(cpulimit=1500)).cpu_quota_us == 300_000
    assert with_workload(None, WorkloadResources(cpulimit=1)) == Resources(
        cpu_quota_us=1000, cpu_period_us=100_000
    )
    assert with_workload(None, WorkloadResources()) is None


@given(st.frozensets(st.integers(0, 300)))
def test_lists_of_cpus_are_written_as_they_are_read(cpus):
    assert parse_cpus(format_cpus(cpus), "x") == cpus


@given(st.text("0123456789,- x", max_size=12))
def test_any_list_of_cpus_is_read_or_refused(text):
    try:
        cpus = parse_cpus(text, "field")
    except InvalidArgument:
        return
    assert parse_cpus(format_cpus(cpus), "field") == cpus
