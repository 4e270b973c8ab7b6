"""Feature annotations: spellings, the handler's gate, and values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import HOST, HYBRID, container

from noded.errors import FailedPrecondition, InvalidArgument
from noded.model.container import Device
from noded.model.pod import Resources
from noded.spec.features import Features, container_features, with_features
from noded.spec.inputs import Rlimit, SpecPolicy
from noded.spec.process import parse_rlimits

FUSE = ("/dev/fuse",)
KEYS = (
    "umask.noded.io/main", "umask.crio.io/main", "io.kubernetes.cri-o.umask/main",
    "io.kubernetes.cri-o.umask.main", "umask.noded.io", "umask.crio.io", "io.kubernetes.cri-o.umask",
)  # fmt: skip


def features(annotations, patterns=("*",)) -> Features:
    return container_features(annotations, "main", patterns, FUSE)


@given(st.dictionaries(st.sampled_from(KEYS), st.integers(0, 0o777), min_size=1))
def test_the_strongest_spelling_wins(values):
    strongest = next(key for key in KEYS if key in values)
    assert features({key: oct(value)[2:] for key, value in values.items()}).umask == values[strongest]


def test_what_the_handler_does_not_allow_is_ignored_and_named():
    asked = {"umask.crio.io": "nonsense", "devices.crio.io": "/dev/sda", "other": "x"}
    assert features(asked, ()) == Features(ignored=("devices.crio.io", "umask.crio.io"))
    assert features({"umask.crio.io": "027"} | {"devices.crio.io": "x"}, ("umask.*",)).umask == 0o27


def test_another_containers_annotation_is_not_this_ones():
    assert features({"umask.crio.io/other": "027"}) == Features()


def test_values_as_they_are_written():
    found = features(
        {
            "cgroup2-mount-hierarchy-rw.crio.io": "true",
            "unified-cgroup.crio.io/main": "memory.high=100; pids.max=max;",
            "io.kubernetes.cri-o.Devices": "/dev/fuse:/dev/mine:r,/dev/fuse,/dev/fuse:rw",
        }
    )
    assert found.cgroup_writable
    assert found.unified == {"memory.high": "100", "pids.max": "max"}
    assert found.devices == (
        Device("/dev/mine", "/dev/fuse", "r"),
        Device("/dev/fuse", "/dev/fuse", "rwm"),
        Device("/dev/fuse", "/dev/fuse", "rw"),
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("umask.crio.io", "8", "'8' is not an octal umask"),
        ("umask.crio.io", "-1", "'-1' is not an octal umask"),
        ("cgroup2-mount-hierarchy-rw.crio.io", "yes", "neither true nor false"),
        ("unified-cgroup.crio.io", "../x=1", "is not FILE=VALUE"),
        ("devices.crio.io", "/dev/sda", "not among the node's allowed_devices"),
        ("devices.crio.io", "/dev/fuse:/dev/../x", "without '..'"),
        ("devices.crio.io", "/dev/fuse:/a:rwx", "is not made of r, w and m"),
        ("devices.crio.io", "/dev/fuse:/a:r:w", "is not HOST_PATH"),
    ],
)
def test_a_bad_value_is_refused_with_its_annotation(key, value, words):
    with pytest.raises(InvalidArgument, match=words) as caught:
        features({key: value})
    assert key in str(caught.value)


def test_features_become_part_of_request_and_policy():
    devices = (Device("/dev/a", "/dev/fuse", "r"),)
    found = Features(0o27, True, {"pids.max": "5"}, devices, ignored=("x.crio.io",))
    config, policy, warnings = with_features(container(), SpecPolicy(), found, HOST)
    assert config.resources.unified == {"pids.max": "5"}
    assert config.devices == found.devices
    assert (policy.umask, policy.cgroup_writable) == (0o27, True)
    assert ["x.crio.io" in warning for warning in warnings] == [True]
    config, _, warnings = with_features(container(), SpecPolicy(), found, HYBRID)
    assert config.resources is None
    assert "cgroup v2" in warnings[1]


def test_limits_are_read_as_an_administrator_writes_them():
    limits = parse_rlimits({"nofile": "10:20", "RLIMIT_CORE": "0", "memlock": "-1"}, "default_ulimits")
    assert limits == (
        Rlimit("RLIMIT_NOFILE", 10, 20),
        Rlimit("RLIMIT_CORE", 0, 0),
        Rlimit("RLIMIT_MEMLOCK", 2**64 - 1, 2**64 - 1),
    )
    for name, text in (("files", "1"), ("nofile", "a"), ("nofile", "1:"), ("nofile", "3:2"), ("core", "-2")):
        with pytest.raises(InvalidArgument, match=f"default_ulimits.{name}"):
            parse_rlimits({name: text}, "default_ulimits")


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, "devices.crio.io", "unified-cgroup.noded.io"]), st.text(max_size=12)
    )
)
def test_any_value_is_read_or_refused(annotations):
    try:
        found = features(annotations)
    except InvalidArgument:
        return
    assert all(device.host_path in FUSE for device in found.devices)
    assert features(annotations, ()) == Features(ignored=tuple(sorted(annotations)))


def test_shared_cpus_come_beside_the_containers_own():
    own = container(resources=Resources(cpuset_cpus="2-3", cpu_quota_us=200_000))
    found = features({"cpu-shared.crio.io/main": "enable"})
    config, policy, _ = with_features(own, SpecPolicy(), found, HOST, "0-1")
    assert config.resources == Resources(cpuset_cpus="0-3", cpu_quota_us=200_000)
    assert dict(config.envs) == {"OPENSHIFT_ISOLATED_CPUS": "2-3", "OPENSHIFT_SHARED_CPUS": "0-1"}
    assert policy.shared_cpus == "0-1"
    with pytest.raises(FailedPrecondition, match="shared_cpuset"):
        with_features(own, SpecPolicy(), found, HOST, "")
    with pytest.raises(InvalidArgument, match="no CPUs of its own"):
        with_features(container(), SpecPolicy(), found, HOST, "0-1")
    assert not features({"cpu-shared.crio.io/main": "disable"}).cpu_shared
    with pytest.raises(InvalidArgument, match="neither enable nor disable"):
        features({"cpu-shared.crio.io": "true"})
