"""`noded.spec.explain`: every field of every golden spec has a source, and the source is the true one."""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from spec_cases import (
    CASES,
    DOCKER_PROFILE,
    HOST,
    RESOURCES,
    USERNS_PATHS,
    container,
    inputs,
    pod,
    userns_pod,
)

from noded.edge.cri.decode_container import container_config
from noded.edge.cri.decode_pod import pod_config
from noded.errors import NodedError
from noded.model.container import ContainerSecurity, Device, Mount
from noded.model.pod import DNSConfig, PortMapping, PortProtocol, SELinuxOptions
from noded.proto.runtime import v1
from noded.spec.explain import explain, reasons
from noded.spec.explain.atoms import atoms
from noded.spec.explain.case import Case, build
from noded.spec.explain.explain import Unexplained, explained
from noded.spec.explain.fields import differing, fields
from noded.spec.explain.sources import Kind, source
from noded.spec.inputs import (
    ContainerInputs,
    ImageVolume,
    NodeMount,
    PodFiles,
    ResolvedDevice,
    ResolvedMount,
    Rlimit,
    SpecPolicy,
)
from noded.spec.seccomp.annotations import NotifyMode


@pytest.mark.parametrize("name", CASES)
def test_every_field_of_a_golden_spec_is_explained(name):
    """A new constant of noded.spec needs a line in reasons.py, a new input one in sources.py."""
    case = Case(CASES[name])
    found = explained(case)
    assert {one.name: one.value for one in found} == fields(build(case))
    assert [one.name for one in found if not (one.origin.name or one.origin.note)] == []


def everything() -> Case:
    """A case in which every input has a value."""
    names = SELinuxOptions("u", "r", "t", "l")
    config = container(
        command=("/bin/sh",),
        args=("-c",),
        envs=(("A", "1"),),
        mounts=(Mount("/data", "/srv"),),
        devices=(Device("/dev/fuse", "/dev/fuse", "rwm"),),
        cdi_devices=("vendor.example/class=one",),
        labels={"a": "b"},
        annotations={"a": "b"},
        resources=RESOURCES,
        stop_signal="SIGTERM",
    )
    security = ContainerSecurity(("ALL",), ("KILL",), ("CHOWN",), selinux=names, run_as_username="web")
    sandbox = replace(
        userns_pod(),
        dns=DNSConfig(("1.1.1.1",), ("a",), ("b",)),
        port_mappings=(PortMapping(PortProtocol.TCP, 80, 8080),),
        sysctls={"net.a": "1"},
        overhead=RESOURCES,
        resources=RESOURCES,
        security=replace(userns_pod().security, selinux=names, run_as_user=1, run_as_group=1),
    )
    policy = SpecPolicy(
        rlimits=(Rlimit("RLIMIT_NOFILE", 1, 2),),
        pids_limit=3,
        default_seccomp=DOCKER_PROFILE,
        privileged_seccomp=DOCKER_PROFILE,
        apparmor_profile="noded-default",
        environment=(("B", "2"),),
        annotations={"c": "d"},
        allowed_annotations=("*",),
        umask=18,
    )
    device = ResolvedDevice("/dev/fuse", "c", 10, 229)
    return Case(
        inputs(
            replace(config, security=security),
            pod=sandbox,
            policy=policy,
            namespaces=replace(USERNS_PATHS, pid="/proc/1/ns/pid"),
            files=PodFiles("/a", "/b", "/c", "/d", "/e"),
            mounts=(ResolvedMount(Mount("/data", "/srv"), "/srv"),),
            volumes=(ImageVolume("/v", "/w"),),
            node_mounts=(NodeMount("/n", "/o", "annotation link-logs.noded.io"),),
            stop_signal="SIGTERM",
            devices=(device,),
            host_devices=(device,),
            seccomp_profile=DOCKER_PROFILE,
            block_io={"weight": 100},
            rdt_class="gold",
            seccomp_mode=NotifyMode.LOG,
            seccomp_listener="/run/listener",
            process_label="p",
            mount_label="m",
        ),
        passwd="root:x:0:0:root:/root:/bin/sh\n",
        group="root:x:0:\n",
        allowed_devices=("/dev/fuse",),
    )


def test_every_input_of_specs_has_a_name():
    """One that fails is new in noded.spec.inputs or noded.model: add it to noded/spec/explain/sources.py."""
    case = everything()
    empty = [one.name for one in dataclasses.fields(case.inputs) if not getattr(case.inputs, one.name)]
    assert empty == [], "give them a value in everything()"
    nameless = [".".join(map(str, atom.path)) for atom in atoms(case) if source(case, atom) is None]
    assert nameless == []


def test_every_name_of_a_request_field_is_one_of_the_cri():
    case = everything()
    for whole, message in (
        (case.inputs.container, v1.ContainerConfig),
        (case.inputs.pod, v1.PodSandboxConfig),
    ):
        for atom in atoms(whole):
            path = ("inputs", "container" if whole is case.inputs.container else "pod", *atom.path)
            named = source(case, replace(atom, path=path))
            if named.kind is Kind.REQUEST:
                assert _exists(message, named.name.partition(".")[2]), named.name


def _exists(message: Any, name: str) -> bool:
    for part in re.sub(r"\[.*?\]", "", name).split("."):
        field = message._betterproto.cls_by_field
        meta = message._betterproto.meta_by_field_name
        if part not in meta:
            return part == "value" and message is not v1.ContainerConfig
        message = field.get(part, message)
    return True


# The proof that does not trust this package: change the field of the request that it names, in the CRI
# message itself, and see that the field of the spec changes.

REQUEST: dict[str, Any] = {
    "config": {
        "metadata": {"name": "main", "attempt": 1},
        "image": {"image": "sha256:1", "userSpecifiedImage": "registry.example/web:1"},
        "command": ["/bin/server", "--port"],
        "args": ["80"],
        "workingDir": "/work",
        "envs": [{"key": "A", "value": "MQ=="}, {"key": "B", "value": "Mg=="}],
        "mounts": [
            {"containerPath": "/data", "hostPath": "/srv/data"},
            {"containerPath": "/etc/hosts", "hostPath": "/srv/hosts", "readonly": True},
        ],
        "annotations": {"io.example.a": "1"},
        "logPath": "main/1.log",
        "stdin": True,
        "stdinOnce": True,
        "tty": True,
        "linux": {
            "resources": {
                "cpuPeriod": "100000",
                "cpuQuota": "50000",
                "cpuShares": "512",
                "memoryLimitInBytes": "134217728",
                "memorySwapLimitInBytes": "234217728",
                "oomScoreAdj": "936",
                "cpusetCpus": "0-1",
                "cpusetMems": "0",
                "hugepageLimits": [{"pageSize": "2MB", "limit": "4194304"}],
                "unified": {"memory.high": "120000000"},
            },
            "securityContext": {
                "capabilities": {
                    "addCapabilities": ["NET_ADMIN", "SYS_TIME"],
                    "dropCapabilities": ["KILL"],
                    "addAmbientCapabilities": ["NET_BIND_SERVICE"],
                },
                "namespaceOptions": {"pid": "CONTAINER"},
                "runAsUser": {"value": "1000"},
                "runAsGroup": {"value": "2000"},
                "readonlyRootfs": True,
                "supplementalGroups": ["7", "8"],
                "noNewPrivs": True,
                "maskedPaths": ["/proc/kcore", "/proc/keys"],
                "readonlyPaths": ["/proc/sys"],
                "seccomp": {"profileType": "RuntimeDefault"},
            },
        },
    },
    "sandboxConfig": {
        "metadata": {"name": "web", "uid": "u-1", "namespace": "default", "attempt": 2},
        "hostname": "web-0",
        "logDirectory": "/var/log/pods/web",
        "annotations": {"io.example.b": "2"},
        "linux": {"securityContext": {"namespaceOptions": {"pid": "CONTAINER"}}},
    },
}
PASSWD = "root:x:0:0::/:/bin/sh\nweb:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\nweb:x:1001:\nextra:x:44:web\n"
OPTIONAL = [
    ("config", "command"), ("config", "args"), ("config", "workingDir"), ("config", "envs"),
    ("config", "mounts"), ("config", "tty"), ("config", "stdin"), ("config", "annotations"),
    *(("config", "linux", "resources", key) for key in REQUEST["config"]["linux"]["resources"]),
    *(("config", "linux", "securityContext", key) for key in REQUEST["config"]["linux"]["securityContext"]),
    ("config", "linux", "securityContext", "capabilities", "addCapabilities"),
    ("config", "linux", "securityContext", "capabilities", "dropCapabilities"),
    ("sandboxConfig", "hostname"), ("sandboxConfig", "annotations"), ("sandboxConfig", "linux"),
]  # fmt: skip


def case_of(request: v1.CreateContainerRequest) -> Case:
    config, sandbox = container_config(request.config), pod_config(request.sandbox_config, "sandbox_config")
    return Case(
        inputs(
            config,
            pod=sandbox,
            mounts=tuple(ResolvedMount(one, one.host_path) for one in config.mounts),
            hostname=sandbox.hostname,
            log_path=f"{sandbox.log_directory}/{config.log_path}",
            policy=SpecPolicy(allowed_annotations=("io.example.*",)),
        ),
        passwd=PASSWD,
        group=GROUP,
    )


def without(request: dict[str, Any], gone: list[tuple[str, ...]]) -> v1.CreateContainerRequest:
    reduced = copy.deepcopy(request)
    for path in gone:
        place = reduced
        for key in path[:-1]:
            place = place.get(key, {})
        place.pop(path[-1], None)
    return v1.CreateContainerRequest.from_dict(reduced)


@settings(max_examples=8, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(st.lists(st.sampled_from(OPTIONAL), unique=True, max_size=10), st.randoms(use_true_random=False))
def test_changing_the_named_field_of_the_request_changes_the_field_of_the_spec(gone, random):
    request = without(REQUEST, gone)
    case = case_of(request)
    before = build(case)
    claimed: dict[str, set[str]] = {}
    for one in explained(case):
        for named in (one.origin, *one.also):
            if named.kind in (Kind.REQUEST, Kind.ANNOTATION):
                claimed.setdefault(_message_path(named), set()).add(one.name)
    for place in sorted(claimed):
        if random.random() < 0.4:
            continue
        changes: set[str] = set()
        for other in _others(request, place):
            try:
                changes |= differing(before, build(case_of(other)))
            except NodedError:
                continue
        assert claimed[place] <= changes, place


def _message_path(named: Any) -> str:
    if named.kind is Kind.REQUEST:
        return str(named.name)
    whose = "sandbox_config" if named.note == "of the pod" else "config"
    return f"{whose}.annotations[{named.name}]"


def _others(request: v1.CreateContainerRequest, place: str) -> list[v1.CreateContainerRequest]:
    """The request with other values at a place, found by attribute names of the messages alone."""
    steps = [part for part in re.split(r"\.(?![^\[]*\])|(?=\[)", place) if part]
    found = []
    for choice in range(4):
        other = copy.deepcopy(request)
        holder: Any = other
        for step in steps[:-1]:
            holder = _step(holder, step)
        last = steps[-1]
        try:
            _change(holder, last, choice)
        except IndexError:
            break
        found.append(other)
    return found


def _step(holder: Any, step: str) -> Any:
    if not step.startswith("["):
        value = getattr(holder, step)
        return holder if value is None else value
    key = step[1:-1]
    return holder[int(key)] if isinstance(holder, list) else holder[key]


def _change(holder: Any, last: str, choice: int) -> None:
    bare = last.strip("[]")
    if isinstance(holder, int):
        raise IndexError
    if last.startswith("["):
        key: Any = int(bare) if isinstance(holder, list) else bare
        value = holder[key]
    elif bare == "value" and not hasattr(holder, "value"):
        raise IndexError
    else:
        value = getattr(holder, bare)
    new = _values(value)[choice]
    if new is REMOVED:
        if not last.startswith("["):
            raise IndexError
        del holder[key]
    elif last.startswith("["):
        holder[key] = new
    else:
        setattr(holder, bare, new)


REMOVED = object()


def _values(value: Any) -> list[Any]:
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, bytes):
        return [value + b"x"]
    if isinstance(value, str):
        return [f"{value}x", REMOVED] if value.isupper() else [f"{value}x", f"/{value}"]
    if isinstance(value, int) and hasattr(type(value), "__members__"):
        return [one for one in type(value) if one != value]
    if isinstance(value, int):
        return [value + 1, value - 1]
    return [REMOVED]


def test_a_value_that_the_node_has_cut_comes_from_the_node():
    found = {one.name: one for one in explained(Case(CASES["oom_score_adj_below_the_daemons"]))}
    assert found["process.oomScoreAdj"].origin.kind is Kind.HOST


def test_a_default_tells_what_would_change_it():
    found = {one.name: one for one in explained(Case(CASES["plain"]))}
    flag = found["process.noNewPrivileges"]
    assert flag.origin.kind is Kind.DEFAULT
    assert [one.name for one in flag.unless] == ["config.linux.security_context.no_new_privs"]


def test_an_annotation_that_grants_a_feature_is_named():
    case = inputs(
        pod=pod(annotations={"umask.noded.io": "0027"}),
        policy=SpecPolicy(allowed_annotations=("umask.noded.io",)),
    )
    found = {one.name: one for one in explained(Case(case))}
    umask = found["process.user.umask"].origin
    assert (umask.kind, umask.name) == (Kind.ANNOTATION, "umask.noded.io")


def test_an_unexplained_field_says_what_to_add(monkeypatch):
    monkeypatch.setattr(reasons, "_COMPILED", ())
    monkeypatch.setattr(explain, "reason", reasons.reason)
    with pytest.raises(Unexplained, match=r"mounts\[/proc\].type.*say why in noded/spec/explain/reasons.py"):
        explained(Case(CASES["plain"]))


def test_privileged_capabilities_come_from_the_request_not_from_the_nodes_limit():
    found = {one.name: one for one in explained(Case(CASES["privileged"]))}
    origin = found["process.capabilities.bounding[CAP_SYS_BOOT]"].origin
    assert (origin.kind, origin.name) == (Kind.REQUEST, "config.linux.security_context.privileged")


def test_the_user_of_the_image_comes_from_its_databases():
    case = inputs(image=replace(CASES["plain"].image, user="web"), host=HOST)
    assert isinstance(case, ContainerInputs)
    found = {one.name: one for one in explained(Case(case, PASSWD, GROUP))}
    assert found["process.user.uid"].value == 1000
    sources = {one.name for one in (found["process.user.uid"].origin, *found["process.user.uid"].also)}
    assert sources == {"User", "/etc/passwd"}
