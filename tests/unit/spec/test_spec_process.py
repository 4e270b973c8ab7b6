"""Command lines, environment, directories, capabilities and exec."""

from __future__ import annotations

import copy

import pytest
from spec_cases import IMAGE, container, inputs, secured

from noded.errors import InvalidArgument
from noded.model.container import ContainerSecurity
from noded.model.image import ImageConfig
from noded.spec.capabilities import KNOWN, container_capabilities
from noded.spec.container import container_spec
from noded.spec.inputs import SpecPolicy
from noded.spec.process import arguments, environment, exec_process, working_directory

DEFAULTS = ("CAP_CHOWN", "CAP_KILL")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ((), (), ["/entry", "--serve", "8080"]),
        (("a",), (), ["a"]),
        (("a",), ("b",), ["a", "b"]),
        ((), ("b",), ["/entry", "--serve", "b"]),
    ],
)
def test_command_and_args_replace_entrypoint_and_cmd(command, args, expected):
    assert arguments(container(command=command, args=args), IMAGE) == expected


@pytest.mark.parametrize("image", [ImageConfig(), ImageConfig(entrypoint=("",))])
def test_an_image_that_names_no_program_is_refused(image):
    with pytest.raises(InvalidArgument, match="command: nothing to run"):
        arguments(container(), image)


def test_an_argument_with_a_nul_is_refused():
    with pytest.raises(InvalidArgument, match=r"command: .* contains a NUL"):
        arguments(container(command=("a\0b",)), IMAGE)


@pytest.mark.parametrize("name", ["", "A=B", "A\0"])
def test_a_variable_that_no_program_could_read_is_refused(name):
    with pytest.raises(InvalidArgument, match=r"envs: .* cannot be the name"):
        environment(container(envs=((name, "x"),)), IMAGE, SpecPolicy(), hostname="h")


def test_damaged_variables_of_an_image_are_left_out():
    image = ImageConfig(env=("OK=1", "NOVALUE", "=x", "NUL=a\0b", "EMPTY="))
    assert environment(container(), image, SpecPolicy(), hostname="") == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "OK=1",
        "EMPTY=",
    ]


def test_a_relative_working_dir_of_the_client_is_refused():
    with pytest.raises(InvalidArgument, match="working_dir: 'x' must be an absolute path"):
        working_directory(container(working_dir="x"), IMAGE)


def capabilities(**security):
    available = security.pop("available", frozenset(KNOWN))
    userns = security.pop("userns", False)
    unknown = security.pop("unknown", ())
    return container_capabilities(
        ContainerSecurity(**security), DEFAULTS, available, user_namespace=userns, unknown=unknown
    )


@pytest.mark.parametrize(
    ("security", "granted"),
    [
        ({}, DEFAULTS),
        ({"add_capabilities": ("net_raw",)}, (*DEFAULTS, "CAP_NET_RAW")),
        ({"drop_capabilities": ("CAP_KILL",)}, ("CAP_CHOWN",)),
        ({"drop_capabilities": ("all",)}, ()),
        ({"drop_capabilities": ("ALL",), "add_capabilities": ("KILL",)}, ("CAP_KILL",)),
        ({"add_capabilities": ("KILL",), "drop_capabilities": ("KILL",)}, ("CAP_CHOWN",)),
        ({"add_capabilities": ("ALL",)}, KNOWN),
        ({"add_capabilities": ("ALL",), "drop_capabilities": ("ALL",)}, ()),
        ({"privileged": True, "drop_capabilities": ("ALL",)}, KNOWN),
    ],
)
def test_capabilities_are_added_and_dropped_in_the_peers_order(security, granted):
    assert capabilities(**security).granted == tuple(granted)


def test_a_capability_that_the_node_lacks_is_left_out_and_told():
    limited = frozenset(KNOWN) - {"CAP_SYS_RESOURCE", "CAP_CHOWN"}
    asked = capabilities(add_capabilities=("SYS_RESOURCE",), available=limited)
    assert asked.granted == ("CAP_KILL",)
    assert "CAP_SYS_RESOURCE" in asked.warnings[0]
    assert "CAP_CHOWN" not in asked.warnings[0]
    assert capabilities(available=limited).warnings == ()
    assert "CAP_CHOWN, CAP_SYS_RESOURCE" in capabilities(privileged=True, available=limited).warnings[0]


def test_a_capability_that_the_runtime_refuses_is_left_out_and_told_when_it_was_named():
    unknown = ("CAP_BPF", "CAP_PERFMON")
    everything = capabilities(privileged=True, unknown=unknown)
    assert everything.granted == tuple(name for name in KNOWN if name not in unknown)
    assert everything.warnings == ()
    named = capabilities(add_capabilities=("BPF", "SYS_TIME"), unknown=unknown, userns=True)
    assert named.granted == (*DEFAULTS, "CAP_SYS_TIME")
    assert named.warnings == ("the runtime knows no CAP_BPF: the container goes without",)
    ambient = capabilities(add_ambient_capabilities=("BPF", "KILL"), unknown=unknown)
    assert ambient.ambient == ("CAP_KILL",)


def test_a_user_namespace_has_its_own_capabilities():
    assert (
        "CAP_SYS_ADMIN"
        in capabilities(add_capabilities=("SYS_ADMIN",), available=frozenset(), userns=True).granted
    )


def test_ambient_capabilities_are_inheritable_and_others_are_not():
    sets = capabilities(add_ambient_capabilities=("NET_RAW",)).to_oci()
    assert sets["ambient"] == sets["inheritable"] == ["CAP_NET_RAW"]
    assert "CAP_NET_RAW" in sets["permitted"]
    assert set(capabilities().to_oci()) == {"bounding", "effective", "permitted"}


def test_an_unknown_capability_is_named():
    with pytest.raises(InvalidArgument, match="drop_capabilities: 'NET_ROW' is not a Linux capability"):
        capabilities(drop_capabilities=("NET_ROW",))


def test_an_exec_has_the_containers_rights_and_leaves_its_spec_alone():
    spec = container_spec(secured(no_new_privs=True, run_as_user=1)).value
    before = copy.deepcopy(spec)
    process = exec_process(spec, ["ls", "-l"], terminal=True)
    assert spec == before
    assert process["args"] == ["ls", "-l"]
    assert process["terminal"] is True
    assert process["env"][-1] == "TERM=xterm"
    for key in ("user", "capabilities", "noNewPrivileges", "cwd"):
        assert process[key] == spec["process"][key]


def test_an_exec_without_a_command_is_refused():
    spec = container_spec(inputs()).value
    with pytest.raises(InvalidArgument, match="cmd: give a command"):
        exec_process(spec, [], terminal=False)
