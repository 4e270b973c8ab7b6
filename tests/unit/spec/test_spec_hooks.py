"""OCI hook files: which containers get them, in which order, and what is refused."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from spec_cases import inputs

from noded.errors import InvalidArgument
from noded.spec.container import container_spec
from noded.spec.hooks import parse_hook, with_hooks

SPEC = container_spec(inputs()).value  # runs /entry


def text(when=None, stages=("prestart",), path="/bin/hook", **more) -> str:
    hook = {"path": path, "args": ["hook"], "timeout": 5}
    fields = {"version": "1.0.0", "hook": hook, "when": when or {}, "stages": list(stages)}
    return json.dumps(fields | more)


def matches(when, annotations=None, *, has_mounts=False) -> bool:
    hook = parse_hook(text(when))
    return with_hooks(SPEC, [("/h/a.json", 0, hook)], annotations or {}, has_mounts=has_mounts) != SPEC


@pytest.mark.parametrize(
    ("when", "answer"),
    [
        ({}, False),
        ({"always": True}, True),
        ({"always": False}, False),
        ({"always": False, "commands": ["entry"]}, False),
        ({"commands": ["^/entry$"]}, True),
        ({"commands": ["nothing", "ent"]}, True),
        ({"commands": ["nothing"]}, False),
        ({"always": True, "commands": ["nothing"]}, False),
        ({"annotations": {"^team$": "^a"}}, True),
        ({"annotations": {"^team$": "^b"}}, False),
        ({"annotations": {"team": ".*", "other": ".*"}}, False),
        ({"annotations": {"team": "a", "owner": "x"}, "commands": ["entry"], "hasBindMounts": True}, True),
        ({"hasBindMounts": True}, True),
        ({"hasBindMounts": False}, False),
    ],
)
def test_all_conditions_must_hold(when, answer):
    assert matches(when, {"team": "alpha", "the-owner": "xy"}, has_mounts=True) == answer


def test_a_container_without_mounts_has_no_bind_mounts():
    assert not matches({"hasBindMounts": True})


@given(st.fixed_dictionaries({}, optional={
    "always": st.booleans(), "hasBindMounts": st.booleans(),
    "commands": st.lists(st.sampled_from(["entry", "no"]), max_size=2),
    "annotations": st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), max_size=2),
}), st.dictionaries(st.sampled_from("ab"), st.sampled_from("12")), st.booleans())  # fmt: skip
def test_a_condition_more_never_adds_containers(when, annotations, has_mounts):
    if not matches(when, annotations, has_mounts=has_mounts):
        return
    for key in when:
        alone = {key: when[key]}
        assert matches(alone, annotations, has_mounts=has_mounts) or not when[key]


def test_files_run_in_the_order_of_their_names_and_later_directories_hide_earlier_ones():
    always = {"always": True}
    files = [
        ("/usr/B.json", 0, parse_hook(text(always, path="/b"))),
        ("/usr/a.json", 0, parse_hook(text(always, path="/hidden"))),
        ("/usr/broken.json", 0, parse_hook(text(always, path="/replaced"))),
        ("/etc/a.json", 1, parse_hook(text(always, ("poststop", "prestart", "prestart"), "/a"))),
        ("/etc/broken.json", 1, None),
    ]
    hooks = with_hooks(SPEC, files, {}, has_mounts=False)["hooks"]
    assert [hook["path"] for hook in hooks["prestart"]] == ["/a", "/b"]
    assert hooks["poststop"] == [{"path": "/a", "args": ["hook"], "timeout": 5}]
    assert "hooks" not in SPEC


def test_hooks_of_devices_stay_first():
    spec = SPEC | {"hooks": {"prestart": [{"path": "/device"}]}}
    hooks = with_hooks(spec, [("/h/a.json", 0, parse_hook(text({"always": True})))], {}, has_mounts=False)
    assert [hook["path"] for hook in hooks["hooks"]["prestart"]] == ["/device", "/bin/hook"]
    assert len(spec["hooks"]["prestart"]) == 1


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ("[]", "the document is an array"),
        (text(version="0.1.0"), "version '0.1.0' is not 1.0.0"),
        (text(stages=[]), "stages: there is none"),
        (text(stages=["start"]), "'start' is none of prestart"),
        (text(path="hook"), "hook.path: 'hook' must be an absolute path"),
        (text({"commands": ["("]}), r"when.commands\[0\]: '\(' is not a regular expression"),
        (text({"annotations": {"a": 1}}), "when.annotations.a is a number"),
        (text({"sometimes": True}), "when: unknown key 'sometimes'"),
        (text({"always": "yes"}), "when.always is not true or false"),
        (text(hook={"path": "/x", "timeout": 0}), "hook.timeout: 0 is not"),
    ],
)
def test_a_bad_file_is_refused_with_the_key(document, words):
    with pytest.raises(InvalidArgument, match=words):
        parse_hook(document)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["path", "always", "commands"]), inner),
    max_leaves=8,
)


@given(st.text() | st.builds(text, when=junk, hook=junk) | st.builds(text, version=junk))
def test_any_text_is_read_or_refused(document):
    with contextlib.suppress(InvalidArgument):
        parse_hook(document)
