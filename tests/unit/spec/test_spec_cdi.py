"""CDI: names, documents, the merge of directories, and what lands in a spec."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import container, inputs

from noded.errors import FailedPrecondition, InvalidArgument
from noded.spec.cdi.catalogue import Catalogue, CdiFile
from noded.spec.cdi.document import STAGES, VERSIONS, CdiSpec, parse_document
from noded.spec.cdi.edits import ContainerEdits, DeviceMount, DeviceNode, Hook, apply_edits, joined
from noded.spec.cdi.names import Kind, parse_kind, qualified, requested_devices
from noded.spec.container import container_spec
from noded.spec.inputs import ResolvedDevice

SCHEMA = jsonschema.Draft202012Validator(json.loads(Path(__file__).with_name("schema.json").read_text()))
KIND = Kind("vendor.com", "gpu")

# names

labels = st.from_regex(r"[a-z]([a-z0-9_.-]{0,6}[a-z0-9])?", fullmatch=True)


@given(labels, labels, st.from_regex(r"[a-z0-9]([a-z0-9_.:-]{0,6}[a-z0-9])?", fullmatch=True))
def test_a_qualified_name_has_a_vendor_a_class_and_a_name(vendor, device_class, name):
    assert qualified(f"{vendor}/{device_class}={name}") == f"{vendor}/{device_class}={name}"
    assert parse_kind(f"{vendor}/{device_class}") == Kind(vendor, device_class)


NO_NAMES = ["gpu0", "vendor.com/gpu", "vendor.com=0", "1v/gpu=0", "v/gpu=", "v/g=-a", "v/g=a-", "v//g=a"]


@pytest.mark.parametrize("name", [*NO_NAMES, "", "v/g=a b", "v/g=a\n"])
def test_what_is_no_qualified_name_is_refused(name):
    with pytest.raises(InvalidArgument):
        qualified(name)


def test_devices_of_the_field_come_first_and_none_comes_twice():
    config = container(
        cdi_devices=("v.com/gpu=1", "v.com/gpu=0"),
        annotations={
            "cdi.k8s.io/b": "v.com/nic=x",
            "cdi.k8s.io/a": "v.com/gpu=0, v.com/gpu=2",
            "other": "v.com/gpu=9",
        },
    )
    assert requested_devices(config) == ("v.com/gpu=1", "v.com/gpu=0", "v.com/gpu=2", "v.com/nic=x")


def test_a_bad_name_is_refused_with_its_field():
    with pytest.raises(InvalidArgument, match=r"CDI_devices\[0\].name: 'gpu0'"):
        requested_devices(container(cdi_devices=("gpu0",)))
    with pytest.raises(InvalidArgument, match=r"annotation cdi.k8s.io/x: ''"):
        requested_devices(container(annotations={"cdi.k8s.io/x": ""}))


# documents

NVIDIA = """\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  env:
  - NVIDIA_VISIBLE_DEVICES=void
  hooks:
  - args: [nvidia-cdi-hook, update-ldcache, --folder, /usr/lib64]
    hookName: createContainer
    path: /usr/bin/nvidia-cdi-hook
  mounts:
  - containerPath: /usr/bin/nvidia-smi
    hostPath: /usr/bin/nvidia-smi
    options: [ro, nosuid, nodev, bind]
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      fileMode: 0660
      permissions: rw
  name: "0"
- containerEdits: &all
    deviceNodes:
    - {path: /dev/dri/card1, hostPath: /dev/dri/card0, type: c, major: 226, uid: 0, gid: 44}
  name: all
kind: nvidia.com/gpu
"""


def document(edits=None, **more) -> str:
    fields = {
        "cdiVersion": "1.1.0",
        "kind": "vendor.com/gpu",
        "devices": [{"name": "0", "containerEdits": edits or {"env": ["A=1"]}}],
    }
    return json.dumps(fields | more)


def test_yaml_as_a_vendors_tool_writes_it_is_understood():
    spec = parse_document(NVIDIA)
    assert spec.kind == Kind("nvidia.com", "gpu")
    assert spec.edits.env == ("NVIDIA_VISIBLE_DEVICES=void",)
    assert spec.edits.hooks[0].args[-1] == "/usr/lib64"
    (node,) = spec.devices["0"].device_nodes
    assert (node.host_path, node.file_mode, node.permissions) == ("/dev/nvidia0", 0o660, "rw")
    assert not node.complete
    (node,) = spec.devices["all"].device_nodes
    assert (node.path, node.host_path, node.major, node.minor) == ("/dev/dri/card1", "/dev/dri/card0", 226, 0)
    assert (node.uid, node.gid, node.complete) == (0, 44, True)


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
roots = st.from_regex(r"/[a-z]{1,5}", fullmatch=True)
variables = st.from_regex(r"[A-Z]{1,3}=[a-z ]{0,3}", fullmatch=True)
all_edits = st.builds(
    ContainerEdits,
    env=st.lists(variables, min_size=1, max_size=3).map(tuple),
    device_nodes=st.lists(
        st.builds(
            DeviceNode,
            path=roots,
            host_path=roots,
            type=st.sampled_from("bcu"),
            major=st.integers(1, 2**32 - 1),
            minor=st.integers(0, 2**32 - 1),
            file_mode=st.none() | st.integers(0, 0o7777),
            permissions=st.sampled_from(["", "r", "rw", "rwm"]),
            uid=st.none() | st.integers(0, 2**32 - 1),
            gid=st.none() | st.integers(0, 2**32 - 1),
        ),
        max_size=2,
    ).map(tuple),
    mounts=st.lists(
        st.builds(DeviceMount, roots, roots, st.just(("ro", "bind")), st.sampled_from(["", "bind"])),
        max_size=2,
    ).map(tuple),
    hooks=st.lists(
        st.builds(
            Hook,
            st.sampled_from(STAGES),
            roots,
            st.lists(texts, max_size=2).map(tuple),
            st.lists(variables, max_size=2).map(tuple),
            st.none() | st.integers(1, 60),
        ),
        max_size=2,
    ).map(tuple),
    additional_gids=st.lists(st.integers(0, 2**32 - 1), max_size=2).map(tuple),
    intel_rdt=st.none() | st.fixed_dictionaries({"closID": roots.map(lambda text: text[1:])}),
    net_devices=st.dictionaries(st.sampled_from(["eth1", "eth2"]), st.sampled_from(["a", "b"]), max_size=2),
)


def written(edits: ContainerEdits) -> dict:
    nodes = [
        {"path": node.path, "hostPath": node.host_path, "type": node.type, "major": node.major,
         "minor": node.minor, "fileMode": node.file_mode, "permissions": node.permissions,
         "uid": node.uid, "gid": node.gid}
        for node in edits.device_nodes
    ]  # fmt: skip
    mounts = [
        {"hostPath": m.host_path, "containerPath": m.container_path, "options": list(m.options),
         "type": m.type}
        for m in edits.mounts
    ]  # fmt: skip
    hooks = [
        {"hookName": h.stage, "path": h.path, "args": list(h.args), "env": list(h.env),
         "timeout": h.timeout_seconds}
        for h in edits.hooks
    ]  # fmt: skip
    return {
        "env": list(edits.env), "deviceNodes": nodes, "mounts": mounts, "hooks": hooks,
        "additionalGids": list(edits.additional_gids), "intelRdt": edits.intel_rdt,
        "netDevices": [{"hostInterfaceName": k, "name": v} for k, v in edits.net_devices.items()],
    }  # fmt: skip


@given(all_edits, all_edits, st.booleans())
def test_what_is_written_is_what_is_read_in_json_and_yaml(edits, general, as_yaml):
    fields = {
        "cdiVersion": "1.1.0", "kind": str(KIND), "containerEdits": written(general),
        "devices": [{"name": "0", "containerEdits": written(edits)}],
    }  # fmt: skip
    text = yaml.safe_dump(fields) if as_yaml else json.dumps(fields)
    assert parse_document(text) == CdiSpec(KIND, general, {"0": edits})


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["0", "/dev/x", "b"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["env", "deviceNodes", "mounts", "hooks", "path", "hookName", "name", "intelRdt",
                         "additionalGids", "containerEdits", "type", "closID", "options"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.one_of(texts, junk.map(json.dumps), junk.map(lambda edits: document(edits or None)),
                 junk.map(lambda devices: document(devices=devices))))  # fmt: skip
def test_any_text_is_read_or_refused(text):
    try:
        spec = parse_document(text)
    except InvalidArgument:
        return
    assert spec.devices


HOST_PATH = {"deviceNodes": [{"path": "/d", "hostPath": "/h"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document(cdiVersion="0.2.0"), "cdiVersion '0.2.0' is none of 0.3.0,"),
        (document(kind="gpu"), "kind: 'gpu' is not VENDOR/CLASS"),
        (document(devices=[]), "devices: there is none"),
        (document({"deviceNodes": [{"path": "dev"}]}), r"device '0'.*deviceNodes\[0\].path: 'dev' must be"),
        (document({"mount": []}), "device '0'.*unknown key 'mount'"),
        (document({"env": ["A"]}), "device '0'.*'A' is not NAME=VALUE"),
        (document({"hooks": [{"hookName": "x", "path": "/x"}]}), "device '0'.*'x' is none of prestart"),
        (document({"intelRdt": {"closID": "../x"}}), "device '0'.*not the name of a directory"),
        (document({"additionalGids": [1]}, cdiVersion="0.6.0"), "additionalGids needs cdiVersion 0.7.0"),
        (document(HOST_PATH, cdiVersion="0.4.0"), "needs cdiVersion 0.5.0"),
        ("devices: [", "not YAML"),
        ("- x", "the document is an array"),
    ],
)  # fmt: skip
def test_a_bad_document_is_refused_with_the_device_and_the_key(text, words):
    with pytest.raises(InvalidArgument, match=words):
        parse_document(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_since_0_3_is_read(version):
    plain = [{"name": "a", "containerEdits": {"env": ["A=1"]}}]
    assert list(parse_document(document(cdiVersion=version, devices=plain)).devices) == ["a"]


# directories


def file(path: str, priority: int, *devices: str, value: str = "1") -> CdiFile:
    edits = {name: ContainerEdits(env=(f"DEVICE={name}{value}",)) for name in devices}
    return CdiFile(path, priority, CdiSpec(KIND, ContainerEdits(env=(f"FILE={path}",)), edits))


def test_a_later_directory_wins():
    files = [file("/etc/cdi/a.json", 0, "0", "1", value="old"), file("/run/cdi/a.json", 1, "0", value="new")]
    for order in (files, files[::-1]):
        catalogue = Catalogue(order)
        assert catalogue.devices == ("vendor.com/gpu=0", "vendor.com/gpu=1")
        assert catalogue.edits(["vendor.com/gpu=0"]).env == ("FILE=/run/cdi/a.json", "DEVICE=0new")


def test_two_files_of_one_directory_contradict_each_other():
    files = [file("/etc/cdi/a.json", 0, "0", "1"), file("/etc/cdi/b.json", 0, "0")]
    catalogue = Catalogue(files)
    assert catalogue.devices == ("vendor.com/gpu=1",)
    with pytest.raises(FailedPrecondition, match=r"both /etc/cdi/a.json and /etc/cdi/b.json"):
        catalogue.edits(["vendor.com/gpu=0"])
    assert "vendor.com/gpu=0" in catalogue.problems
    settled = Catalogue([*files, file("/run/cdi/c.json", 1, "0")])
    assert settled.devices == ("vendor.com/gpu=0", "vendor.com/gpu=1")


def test_the_files_own_edits_come_once_and_first():
    catalogue = Catalogue([file("/etc/cdi/a.json", 0, "0", "1")])
    edits = catalogue.edits(["vendor.com/gpu=1", "vendor.com/gpu=0"])
    assert edits.env == ("FILE=/etc/cdi/a.json", "DEVICE=11", "DEVICE=01")


def test_all_missing_devices_are_named_with_the_files_that_could_not_be_read():
    broken = CdiFile("/etc/cdi/bad.yaml", 0, None, "not YAML: x")
    with pytest.raises(FailedPrecondition) as caught:
        Catalogue([broken]).edits(["a.b/c=0", "a.b/c=1"])
    for words in ("a.b/c=0", "a.b/c=1", "/etc/cdi/bad.yaml: not YAML"):
        assert words in str(caught.value)


@given(st.lists(st.tuples(st.integers(0, 2), st.sets(st.sampled_from("abc"), min_size=1)), max_size=5))
def test_a_device_is_usable_exactly_when_its_highest_directory_has_it_once(rows):
    files = [file(f"/{index}", priority, *sorted(names)) for index, (priority, names) in enumerate(rows)]
    usable = set(Catalogue(files).devices)
    for name in "abc":
        priorities = [priority for priority, names in rows if name in names]
        once = bool(priorities) and priorities.count(max(priorities)) == 1
        assert (f"vendor.com/gpu={name}" in usable) == once


# specs


def spec_with(edits: ContainerEdits, nodes=None, **more):
    return apply_edits(container_spec(inputs(**more)).value, edits, nodes or {})


def test_edits_land_where_runtimes_look():
    edits = ContainerEdits(
        env=("LANG=x", "NEW=1"),
        device_nodes=(
            DeviceNode("/dev/g1", "/dev/g0"),
            DeviceNode("/dev/f", "/dev/f", "p"),
            DeviceNode("/dev/u", "/dev/u", "u", 1, 2, 0o600, "r", 0, 7),
        ),
        mounts=(DeviceMount("/srv/x", "/usr/lib/x/"), DeviceMount("tmpfs", "/scratch", (), "tmpfs")),
        hooks=(Hook("createContainer", "/bin/hook", ("hook", "a"), ("A=1",), 5),),
        additional_gids=(0, 44, 44),
        intel_rdt={"closID": "gold"},
        net_devices={"eth1": "net1"},
    )
    request = inputs(user=replace(inputs().user, uid=1000, gid=1000))
    before = container_spec(request).value
    spec = apply_edits(before, edits, {"/dev/g0": ResolvedDevice("/dev/g0", "c", 195, 3)})
    assert before == container_spec(request).value
    assert spec["process"]["env"][:2] == ["PATH=/usr/bin:/bin", "LANG=x"]
    assert spec["process"]["env"][-1] == "NEW=1"
    assert spec["process"]["user"]["additionalGids"] == [0, 44]
    assert spec["linux"]["devices"] == [
        {"path": "/dev/f", "type": "p", "uid": 1000, "gid": 1000},
        {"path": "/dev/g1", "type": "c", "major": 195, "minor": 3, "uid": 1000, "gid": 1000},
        {"path": "/dev/u", "type": "u", "major": 1, "minor": 2, "fileMode": 0o600, "uid": 0, "gid": 7},
    ]
    assert spec["linux"]["resources"]["devices"] == [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 195, "minor": 3, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 2, "access": "r"},
    ]
    mounts = {mount["destination"]: mount for mount in spec["mounts"]}
    assert mounts["/usr/lib/x"] == {
        "destination": "/usr/lib/x", "type": "bind", "source": "/srv/x", "options": ["rbind"]
    }  # fmt: skip
    assert mounts["/scratch"]["type"] == "tmpfs"
    assert spec["hooks"] == {
        "createContainer": [{"path": "/bin/hook", "args": ["hook", "a"], "env": ["A=1"], "timeout": 5}]
    }
    assert spec["linux"]["intelRdt"] == {"closID": "gold"}
    assert spec["linux"]["netDevices"] == {"eth1": {"name": "net1"}}


def test_a_device_and_a_mount_replace_what_is_at_their_place():
    edits = ContainerEdits(
        device_nodes=(DeviceNode("/dev/kvm", "/dev/kvm", "c", 9, 9),),
        mounts=(DeviceMount("/srv/hosts", "/etc/hosts", ("bind", "ro")),),
    )
    spec = spec_with(edits, devices=(ResolvedDevice("/dev/kvm", "c", 10, 232),))
    assert [node["major"] for node in spec["linux"]["devices"]] == [9]
    hosts = [mount for mount in spec["mounts"] if mount["destination"] == "/etc/hosts"]
    assert [mount["source"] for mount in hosts] == ["/srv/hosts"]


@given(st.lists(all_edits, max_size=3))
def test_edits_never_hide_a_mount_take_a_right_or_depend_on_the_hash_seed(many):
    edits = joined(many)
    before = container_spec(inputs()).value
    spec = spec_with(edits)
    assert [error.message for error in SCHEMA.iter_errors(spec)] == []
    seen: list[str] = []
    for mount in spec["mounts"]:
        assert not any(
            path == mount["destination"] or path.startswith(mount["destination"] + "/") for path in seen
        )
        seen.append(mount["destination"])
    for key in ("capabilities", "noNewPrivileges"):
        assert spec["process"][key] == before["process"][key]
    for key in ("maskedPaths", "readonlyPaths", "namespaces"):
        assert spec["linux"][key] == before["linux"][key]
    assert json.dumps(spec_with(edits)) == json.dumps(spec)
    assert spec_with(ContainerEdits()) == before
