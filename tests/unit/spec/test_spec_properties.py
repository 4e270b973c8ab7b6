"""What holds for every request that validation lets through."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from spec_cases import CASES, FEATURES, HOST, IMAGE, MAPPING, USERNS_PATHS, inputs
from spec_cases import container as base_container
from spec_cases import pod as base_pod

from noded.errors import NodedError
from noded.model.container import ContainerSecurity, Mount, MountPropagation
from noded.model.host import CgroupMode
from noded.model.pod import (
    GroupsPolicy,
    NamespaceMode,
    NamespaceOptions,
    ProfileType,
    Resources,
    SecurityProfile,
    UserNamespace,
)
from noded.spec.capabilities import KNOWN
from noded.spec.container import container_spec
from noded.spec.inputs import ContainerInputs, ResolvedDevice, ResolvedMount, SpecPolicy
from noded.spec.lsm import MASKED_PATHS, READONLY_PATHS
from noded.spec.user import resolve_user
from noded.spec.validate import validate_container, validate_pod

SCHEMA = jsonschema.Draft202012Validator(json.loads(Path(__file__).with_name("schema.json").read_text()))
DEFAULTS = frozenset(SpecPolicy().default_capabilities)

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
paths = st.lists(
    st.sampled_from(["data", "dev", "shm", "etc", "hosts", "proc", "sys", "x"]), min_size=1, max_size=3
).map(lambda parts: "/" + "/".join(parts))
capabilities = st.lists(
    st.sampled_from([*KNOWN, "ALL", "net_admin", "SYS_TIME"]), max_size=4, unique=True
).map(tuple)
profiles = st.none() | st.sampled_from(
    [SecurityProfile(ProfileType.RUNTIME_DEFAULT), SecurityProfile(ProfileType.UNCONFINED)]
)
namespaces = st.builds(
    NamespaceOptions,
    network=st.sampled_from([NamespaceMode.POD, NamespaceMode.NODE]),
    pid=st.sampled_from([NamespaceMode.POD, NamespaceMode.CONTAINER, NamespaceMode.NODE]),
    ipc=st.sampled_from([NamespaceMode.POD, NamespaceMode.NODE]),
    userns=st.sampled_from([None, None, UserNamespace(uids=MAPPING, gids=MAPPING)]),
)
securities = st.builds(
    ContainerSecurity,
    add_capabilities=capabilities,
    drop_capabilities=capabilities,
    add_ambient_capabilities=capabilities,
    privileged=st.booleans(),
    run_as_user=st.none() | st.integers(0, 2**32 - 2),
    readonly_rootfs=st.booleans(),
    supplemental_groups=st.lists(st.integers(0, 2**32 - 2), max_size=3).map(tuple),
    supplemental_groups_policy=st.sampled_from(GroupsPolicy),
    no_new_privs=st.booleans(),
    masked_paths=st.lists(paths, max_size=2).map(tuple),
    readonly_paths=st.lists(paths, max_size=2).map(tuple),
    seccomp=profiles,
)
mounts = st.builds(
    Mount,
    container_path=paths,
    host_path=paths,
    readonly=st.booleans(),
    propagation=st.sampled_from(MountPropagation),
    recursive_read_only=st.booleans(),
)
resources = st.builds(
    Resources,
    cpu_period_us=st.sampled_from([0, 1000, 100_000]),
    cpu_quota_us=st.sampled_from([-1, 0, 5000]),
    cpu_shares=st.integers(0, 2**18),
    memory_limit_bytes=st.integers(0, 2**40),
    oom_score_adj=st.integers(-1000, 1000),
    cpuset_cpus=st.sampled_from(["", "0", "0-3,7"]),
)
devices = st.lists(
    st.builds(
        ResolvedDevice,
        container_path=paths,
        type=st.sampled_from("bc"),
        major=st.integers(0, 4095),
        minor=st.integers(0, 2**20 - 1),
        mode=st.integers(0, 0o777),
        permissions=st.sampled_from(["", "r", "rw", "rwm"]),
    ),
    max_size=3,
).map(tuple)


@st.composite
def requests(draw) -> ContainerInputs:
    options = draw(namespaces)
    security = draw(securities)
    pod = base_pod(
        namespaces=options,
        privileged=security.privileged or draw(st.booleans()),
        annotations=draw(st.dictionaries(names, names, max_size=3)),
    )
    config = replace(
        base_container(),
        command=draw(st.lists(names, max_size=2).map(tuple)),
        args=draw(st.lists(names, max_size=2).map(tuple)),
        envs=draw(
            st.lists(st.tuples(names.filter(lambda name: "=" not in name), names), max_size=3).map(tuple)
        ),
        annotations=draw(st.dictionaries(names, names, max_size=3)),
        mounts=draw(st.lists(mounts, max_size=3, unique_by=lambda mount: mount.container_path).map(tuple)),
        resources=draw(st.none() | resources),
        tty=draw(st.booleans()),
        security=security,
    )
    host = replace(
        HOST,
        cgroup_mode=draw(st.sampled_from(CgroupMode)),
        architecture=draw(st.sampled_from(["x86_64", "aarch64", "s390x", "vax"])),
        bounding_capabilities=frozenset(KNOWN) - draw(st.frozensets(st.sampled_from(KNOWN), max_size=3)),
        may_lower_oom_score_adj=draw(st.booleans()),
        swap_accounting=draw(st.booleans()),
    )
    features = replace(FEATURES, highest_oci_version=draw(st.sampled_from(["1.0.2", "1.1.0", "1.2.1", ""])))
    try:
        validate_pod(pod, features, host)
        validate_container(config, pod, features, host)
    except NodedError:
        assume(False)
    return inputs(
        config,
        pod=pod,
        host=host,
        features=features,
        user=resolve_user("root:x:0:0::/:\n", "", "", security),
        mounts=tuple(ResolvedMount(mount, mount.host_path, parent_shared=True) for mount in config.mounts),
        namespaces=USERNS_PATHS,
        devices=draw(devices),
        host_devices=draw(devices),
        policy=SpecPolicy(
            allowed_annotations=draw(st.sampled_from([(), ("*",), ("a*",)])),
            pids_limit=draw(st.sampled_from([None, 0, 5])),
        ),
    )


def text(request: ContainerInputs) -> str:
    return json.dumps(container_spec(request).value)


@settings(deadline=None)
@given(requests())
def test_a_valid_request_gives_a_valid_spec(request):
    assert [error.message for error in SCHEMA.iter_errors(json.loads(text(request)))] == []


@settings(deadline=None)
@given(requests())
def test_the_same_request_gives_the_same_bytes(request):
    shuffled = replace(
        request,
        pod=replace(request.pod, annotations=dict(reversed(list(request.pod.annotations.items())))),
        container=replace(
            request.container, annotations=dict(reversed(list(request.container.annotations.items())))
        ),
    )
    assert text(request) == text(request) == text(shuffled)


@settings(deadline=None)
@given(requests())
def test_only_privileged_loses_what_protects_the_node(request):
    spec, security = container_spec(request).value, request.container.security
    linux, granted = spec["linux"], set(spec["process"]["capabilities"]["bounding"])
    asked = {
        f"CAP_{name.upper().removeprefix('CAP_')}"
        for name in security.add_capabilities + security.add_ambient_capabilities
    }
    if security.privileged:
        assert "seccomp" not in linux
        assert linux["maskedPaths"] == linux["readonlyPaths"] == []
        return
    in_user_namespace = any(entry["type"] == "user" for entry in linux["namespaces"])
    assert ("seccomp" in linux) == (security.seccomp == SecurityProfile(ProfileType.RUNTIME_DEFAULT))
    if not in_user_namespace:
        assert set(linux["maskedPaths"]) == set(security.masked_paths or MASKED_PATHS)
        assert set(linux["readonlyPaths"]) == set(security.readonly_paths or READONLY_PATHS)
        assert granted <= request.host.bounding_capabilities
    assert "CAP_ALL" in asked or granted <= DEFAULTS | asked
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    for mount in spec["mounts"]:
        if mount["type"] in ("sysfs", "cgroup"):
            assert "ro" in mount["options"]


@settings(deadline=None)
@given(requests())
def test_a_mount_never_hides_an_earlier_one_below_it(request):
    seen: list[str] = []
    for mount in container_spec(request).value["mounts"]:
        path = mount["destination"]
        assert path not in seen
        assert not any(earlier.startswith(f"{path}/") for earlier in seen)
        seen.append(path)


@settings(deadline=None)
@given(requests())
def test_no_annotation_of_a_user_passes_for_one_of_noded(request):
    forged = {"io.kubernetes.cri.sandbox-id": "forged", "io.kubernetes.cri-o.ContainerType": "sandbox"}
    request = replace(
        request,
        container=replace(request.container, annotations=forged),
        policy=replace(request.policy, allowed_annotations=("*",)),
    )
    annotations = container_spec(request).value["annotations"]
    assert annotations["io.kubernetes.cri.sandbox-id"] == request.sandbox_id
    assert annotations["io.kubernetes.cri-o.ContainerType"] == "container"


def test_changing_a_spec_does_not_change_the_next_one():
    request = CASES["seccomp_runtime_default"]
    before = text(request)
    spec = container_spec(request).value
    spec["linux"]["seccomp"]["syscalls"][0]["names"].clear()
    spec["linux"]["maskedPaths"].clear()
    spec["mounts"][0]["options"].clear()
    assert text(request) == before
    assert request.image is IMAGE
