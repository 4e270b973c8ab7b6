"""Base specs: what counts, what is refused by its name, and what no base spec can change."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import BASE, CASES, ContainerInputs, replace

from noded.errors import InvalidArgument
from noded.spec.base import parse_base_spec, with_base
from noded.spec.container import container_spec

CONTAINERS = [name for name, case in CASES.items() if isinstance(case, ContainerInputs)]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ("[]", "the document is an array"),
        ({"windows": {}}, "windows: not known"),
        ({"process": {"rlimit": []}}, "process.rlimit: not known"),
        ({"process": {"env": ["A"]}}, r"process.env\[0\]: 'A' is not NAME=VALUE"),
        ({"process": {"env": [1]}}, r"process.env\[0\] is a number"),
        ({"process": {"rlimits": [{"type": "NOFILE"}]}}, r"process.rlimits\[0\].type: 'NOFILE'"),
        ({"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}}, "soft: 2 is above"),
        ({"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": -1}]}}, "soft: -1 is not a number"),
        ({"mounts": [{}]}, r"mounts\[0\].destination is missing"),
        ({"mounts": [{"destination": "run"}]}, r"mounts\[0\].destination: 'run' must be an absolute path"),
        ({"hooks": {"before": []}}, "hooks.before: not known"),
        ({"hooks": {"poststop": [{"path": "tidy"}]}}, r"hooks.poststop\[0\].path: 'tidy'"),
        ({"annotations": {"a": 1}}, "annotations.a is a number"),
        ({"linux": {"sysctl": {"net.core.somaxconn": "1"}}}, "linux.sysctl: .* default_sysctls"),
        ({"linux": {"resource": {}}}, "linux.resource: not known"),
        ({"linux": {"resources": {"memory": 5}}}, "linux.resources.memory is a number"),
        ({"linux": {"resources": {"ram": {}}}}, "linux.resources.ram: not known"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "p"}]}}, r"linux.devices\[0\].type: 'p'"),
        ({"linux": {"devices": [{"path": "/dev/x", "type": "c"}]}}, r"linux.devices\[0\].major: None"),
    ],
)
def test_a_mistake_is_refused_by_the_name_of_its_key(document, words):
    with pytest.raises(InvalidArgument, match=words):
        parse_base_spec(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_base_spec_only_adds(name):
    case = CASES[name]
    plain = container_spec(replace(case, policy=replace(case.policy, base=None))).value
    based = container_spec(replace(case, policy=replace(case.policy, base=BASE))).value
    for key in plain["process"].keys() - {"env", "rlimits"}:
        assert based["process"][key] == plain["process"][key]
    for key in plain["linux"].keys() - {"resources", "devices"}:
        assert based["linux"][key] == plain["linux"][key]
    assert "seccomp" not in based["linux"] or "seccomp" in plain["linux"]
    assert all(mount in based["mounts"] for mount in plain["mounts"])
    assert [one["destination"] for one in based["mounts"] if one not in plain["mounts"]] == ["/run"]
    rules = plain["linux"]["resources"]["devices"]
    assert based["linux"]["resources"]["devices"][: len(rules)] == rules
    assert based["annotations"] == plain["annotations"] | {"site.example/rack": "7"} or (
        plain["annotations"].get("site.example/rack")
    )
    assert [entry for entry in based["process"]["env"] if entry.startswith("PATH=")] == [
        entry for entry in plain["process"]["env"] if entry.startswith("PATH=")
    ]


def test_the_given_spec_stays_as_it_is():
    spec = container_spec(CASES["devices"]).value
    before = json.dumps(spec)
    assert with_base(spec, BASE) != spec
    assert json.dumps(spec) == before
    assert with_base(spec, {}) == spec


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["process", "env", "linux", "resources", "mounts", "destination", "hooks", "type"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(VALUES)
def test_any_document_is_read_or_refused_and_what_is_read_can_be_used(document):
    try:
        base = parse_base_spec(json.dumps(document))
    except InvalidArgument:
        return
    with_base(container_spec(CASES["devices"]).value, base)
