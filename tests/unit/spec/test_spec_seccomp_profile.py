"""Profiles of administrators: both forms, and messages that name the offending key."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import DOCKER_PROFILE, OCI_PROFILE

from noded.errors import InvalidArgument
from noded.spec.seccomp.profile import MAX_PROFILE_BYTES, check_profile, parse_profile, resolve_profile


def parse(profile):
    return parse_profile(json.dumps(profile).encode(), "/p.json")


def resolve(profile, *, architecture="x86_64", capabilities=(), kernel=(6, 1)):
    return resolve_profile(
        parse(profile), architecture=architecture, capabilities=capabilities, kernel=kernel
    )


def test_the_form_of_the_runtime_spec_passes_unchanged():
    assert resolve(OCI_PROFILE) == OCI_PROFILE


def test_conditions_choose_rules_by_capability_architecture_and_kernel():
    def rules(**facts):
        return [
            (rule["names"][0], rule["action"][9:]) for rule in resolve(DOCKER_PROFILE, **facts)["syscalls"]
        ]

    always = ("read", "ALLOW")
    assert rules() == [always, ("mount", "ERRNO"), ("arch_prctl", "ALLOW"), ("ptrace", "ALLOW")]
    assert rules(capabilities=("CAP_SYS_ADMIN",))[1] == ("mount", "ALLOW")
    assert rules(architecture="aarch64", kernel=(4, 4)) == [always, ("mount", "ERRNO"), ("set_tls", "ALLOW")]


def test_names_of_errnos_and_maps_of_architectures_become_what_the_runtime_spec_has():
    value = resolve(DOCKER_PROFILE)
    assert value["defaultErrnoRet"] == 38
    assert value["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert value["syscalls"][1]["errnoRet"] == 1
    assert "comment" not in value["syscalls"][0]


def test_a_single_name_and_keys_in_any_case_are_understood():
    value = resolve(
        {"DefaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "chmod", "Action": "SCMP_ACT_KILL"}]}
    )
    assert value == {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_KILL"}],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"defaultAction": None}, "defaultAction: None is unknown"),
        (
            {"defaultAction": "SCMP_ACT_ALOW"},
            "defaultAction: 'SCMP_ACT_ALOW' is unknown, did you mean SCMP_ACT_ALLOW?",
        ),
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "defaultAction: SCMP_ACT_NOTIFY would stop the runtime"),
        ({"defaultErrno": "ENOWAY"}, "defaultErrno: 'ENOWAY' is not the name of an errno"),
        ({"defaultErrnoRet": -1}, "defaultErrnoRet: -1 is not an integer"),
        ({"sycalls": []}, 'sycalls: unknown key, did you mean "syscalls"?'),
        ({"architectures": ["X86_64"]}, "architectures[0]: 'X86_64' is unknown"),
        ({"architectures": "SCMP_ARCH_X86"}, "architectures: must be a list"),
        ({"flags": ["TSYNC"]}, "flags[0]: 'TSYNC' is unknown"),
        ({"archMap": [{"architecture": "x"}]}, "archMap[0]: 'x' is unknown"),
        ({"syscalls": {}}, "syscalls: must be a list"),
        ({"syscalls": ["read"]}, "syscalls[0]: must be an object"),
        (
            {"syscalls": [{"names": [], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0].names: names no system call",
        ),
        (
            {"syscalls": [{"names": [7], "action": "SCMP_ACT_ALLOW"}]},
            "syscalls[0].names[0]: 7 is not the name",
        ),
        ({"syscalls": [{"names": ["a"]}]}, 'syscalls[0]: the key "action" is missing'),
        ({"syscalls": [{"names": ["a"], "action": "SCMP_ACT_NOTIFY"}]}, 'needs the key "listenerPath"'),
        (
            {"listenerPath": "/s", "syscalls": [{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]},
            "write with SCMP_ACT_NOTIFY would stop the runtime itself",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "arg": []}]},
            "syscalls[0].arg: unknown key",
        ),
        (
            {
                "syscalls": [
                    {
                        "names": ["a"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 6, "value": 0, "op": "x"}],
                    }
                ]
            },
            "syscalls[0].args[0].index: 6 is not an integer between 0 and 5",
        ),
        (
            {
                "syscalls": [
                    {
                        "names": ["a"],
                        "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": True, "op": "x"}],
                    }
                ]
            },
            "syscalls[0].args[0].value: True is not an integer",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}]},
            "syscalls[0].includes.minKernel: 'new' is not of the form",
        ),
        (
            {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": [1]}}]},
            "syscalls[0].excludes.caps[0]: 1 is not a text",
        ),
    ],
)
def test_a_mistake_is_named_with_its_key(change, message):
    with pytest.raises(InvalidArgument) as caught:
        parse({"defaultAction": "SCMP_ACT_ALLOW"} | change)
    assert str(caught.value).startswith("seccomp profile /p.json: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "must be an object"),
        (b"{}", 'the key "defaultAction" is missing'),
        (b"[" * 100_000, "not JSON"),
        (b" " * (MAX_PROFILE_BYTES + 1), "larger than 1048576 bytes"),
    ],
)
def test_what_is_no_profile_is_said_to_be_none(data, message):
    with pytest.raises(InvalidArgument, match=message):
        parse_profile(data, "/p.json")


KEYS = (
    "names", "name", "action", "args", "syscalls", "includes", "excludes", "errno", "index", "value", "op",
    "archMap", "caps",
)  # fmt: skip
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.sampled_from(["SCMP_ACT_ALLOW", "read", "EPERM"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS) | st.text(max_size=3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["syscalls", "archMap", "flags", "defaultErrno", "architectures"]), values
    )
)
def test_any_json_is_refused_or_resolves(value):
    profile = {"defaultAction": "SCMP_ACT_ERRNO"} | value
    try:
        checked = parse(profile)
    except InvalidArgument:
        return
    resolve_profile(checked, architecture="x86_64", capabilities=(), kernel=(6, 1))


def test_checking_does_not_change_what_it_is_given():
    before = copy.deepcopy(DOCKER_PROFILE)
    checked = check_profile(DOCKER_PROFILE, "x")
    assert before == DOCKER_PROFILE
    assert check_profile(checked, "x") == checked
