"""What the annotations of a pod ask for the pod as a whole, and which are only told of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import container, pod, userns_pod

from noded.errors import InvalidArgument
from noded.model.container import Mount
from noded.model.pod import NamespaceMode
from noded.spec.feature_keys import NOT_SUPPORTED, POD_FEATURES
from noded.spec.inputs import NodeMount
from noded.spec.pod_features import PodFeatures, log_link, log_mounts, pod_features

EMPTY_DIR = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir"


def features(patterns=("*",), **annotations) -> PodFeatures:
    return pod_features(pod(annotations=annotations), patterns)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64Mi", 64 << 20), ("128m", 128 << 20), ("1G", 1 << 30), ("4096", 4096), ("2kb", 2048)],
)
def test_the_size_of_shared_memory_is_read(text, size):
    assert features(**{"shm-size.crio.io": text}).shm_bytes == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5Gi", "much", "99999999Ti"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(InvalidArgument, match=r"annotation io\.kubernetes\.cri-o\.ShmSize"):
        features(**{"io.kubernetes.cri-o.ShmSize": text})


def test_an_annotation_that_is_not_allowed_does_nothing_and_is_told():
    found = features((), **{"shm-size.crio.io": "much", "link-logs.noded.io": "logs", "other": "x"})
    assert (found.shm_bytes, found.log_volume) == (None, "")
    assert [warning.split()[1] for warning in found.warnings] == ["link-logs.noded.io", "shm-size.crio.io"]


@pytest.mark.parametrize("key", NOT_SUPPORTED)
@pytest.mark.parametrize("patterns", [(), ("*",)])
def test_what_only_other_runtimes_act_on_is_told_allowed_or_not(key, patterns):
    (warning,) = features(patterns, **{f"{key}/main": "x"}).warnings
    assert warning == f"annotation {key}/main is ignored: {NOT_SUPPORTED[key]}"


def test_a_pod_that_asks_for_a_user_namespace_and_has_none_is_refused():
    with pytest.raises(InvalidArgument, match="hostUsers: false"):
        features(**{"io.kubernetes.cri-o.userns-mode": "auto:size=65536"})
    with pytest.raises(InvalidArgument, match="none of auto"):
        features(**{"userns-mode.crio.io": "keep-id"})
    assert features(**{"userns-mode.crio.io": "host"}) == PodFeatures()
    assert features((), **{"userns-mode.crio.io": "auto"}).warnings
    own = userns_pod(pid=NamespaceMode.CONTAINER)
    assert pod_features(own, ("*",)) == PodFeatures()


def test_containers_see_the_logs_where_they_have_the_volume():
    mounts = (Mount("/a", f"{EMPTY_DIR}/logs"), Mount("/b", f"{EMPTY_DIR}/other"), Mount("/c", "/logs"))
    given = pod(log_directory="/var/log/pods/x")
    assert log_mounts(given, container(mounts=mounts), "logs") == (
        NodeMount("/a/logs", "/var/log/pods/x", "link-logs"),
    )
    assert log_mounts(given, container(mounts=mounts), "") == ()
    assert log_mounts(pod(log_directory=""), container(mounts=mounts), "logs") == ()
    for name in ("../etc", "a/b", "", "A"):
        with pytest.raises(InvalidArgument, match="emptyDir"):
            features(**{"link-logs.crio.io": name})


@pytest.mark.parametrize("key", ["link-logs.noded.io", "link-logs.crio.io", "io.kubernetes.cri-o.LinkLogs"])
def test_a_container_finds_its_own_log_by_its_id(key):
    given = pod(log_directory="/var/log/pods/x", annotations={key: "logs"})
    assert log_link(given, "/var/log/pods/x/main/0.log", "c1") == ("/var/log/pods/x/c1", "main/0.log")
    assert log_link(given, "", "c1") is None
    assert log_link(pod(log_directory="/var/log/pods/x"), "/var/log/pods/x/main/0.log", "c1") is None


@given(
    st.dictionaries(
        st.sampled_from([*POD_FEATURES.values(), *(f"{name}.crio.io" for name in POD_FEATURES)]),
        st.text(max_size=12),
    )
)
def test_any_value_is_read_or_refused(annotations):
    try:
        found = features(**annotations)
    except InvalidArgument:
        pass
    else:
        assert found.warnings == ()
    assert len(features((), **annotations).warnings) == len(annotations)
