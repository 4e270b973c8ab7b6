"""Filters that tell of calls, and the profile of a recording."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.engine.seccomp_notifier import check_mode
from noded.errors import FailedPrecondition
from noded.spec.seccomp.annotations import NotifyMode
from noded.spec.seccomp.default import default_profile
from noded.spec.seccomp.notify import NAMES, NOTIFY, RUNTIME_CALLS, UNTOLD, errnos_of, minimal, telling
from noded.spec.seccomp.profile import check_profile

DEFAULT = default_profile("x86_64", ())
OPEN = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}


def told(profile) -> set[str]:
    return {name for rule in profile["syscalls"] if rule["action"] == NOTIFY for name in rule["names"]}


def by_action(profile, action) -> set[str]:
    return {name for rule in profile["syscalls"] if rule["action"] == action for name in rule["names"]}


@pytest.mark.parametrize("base", [None, DEFAULT, OPEN])
@pytest.mark.parametrize("mode", NotifyMode)
def test_what_runtimes_call_before_the_handover_is_never_told_nor_anything_by_the_default_action(base, mode):
    profile = telling(base, mode, "/run/x.sock", "x86_64")
    if profile is None:
        assert base is None
        assert mode is not NotifyMode.RECORD
        return
    assert not told(profile) & UNTOLD
    assert {"write", "rt_sigreturn", "futex"} <= UNTOLD <= RUNTIME_CALLS  # so a recording's profile has them
    assert profile["defaultAction"] != NOTIFY
    assert profile["listenerPath"] == "/run/x.sock"
    check_profile(profile, "x")  # it is one that runtimes take


def test_a_recording_tells_every_allowed_call_and_keeps_the_others_out():
    profile = telling(DEFAULT, NotifyMode.RECORD, "/s", "x86_64")
    assert told(profile) == by_action(DEFAULT, "SCMP_ACT_ALLOW") - UNTOLD
    assert by_action(profile, "SCMP_ACT_ALLOW") == UNTOLD
    assert by_action(profile, "SCMP_ACT_ERRNO") == by_action(DEFAULT, "SCMP_ACT_ERRNO")
    assert errnos_of(profile) is None
    unconfined = telling(None, NotifyMode.RECORD, "/s", "x86_64")
    assert told(unconfined) == NAMES - UNTOLD
    assert unconfined["defaultAction"] == "SCMP_ACT_ALLOW"


def test_a_report_tells_every_blocked_call_and_answers_as_the_profile():
    profile = telling(DEFAULT, NotifyMode.LOG, "/s", "x86_64")
    blocked = by_action(DEFAULT, "SCMP_ACT_ERRNO")
    assert blocked <= told(profile)
    assert not by_action(profile, "SCMP_ACT_ERRNO")
    assert by_action(profile, "SCMP_ACT_ALLOW") == by_action(DEFAULT, "SCMP_ACT_ALLOW")
    errnos = errnos_of(profile)
    assert errnos["clone3"] == 38
    assert errnos["socket"] == 97
    assert "mount" not in errnos  # EPERM


def test_a_second_answer_for_one_call_stays_the_kernels():
    base = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [{"index": 0}]},
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "args": [{"index": 1}]},
        ],
    }
    rules = telling(base, NotifyMode.LOG, "/s", "x86_64")["syscalls"]
    assert [(rule["action"], rule["args"][0]["index"]) for rule in rules] == [
        (NOTIFY, 0),
        ("SCMP_ACT_ERRNO", 1),
    ]


def test_what_cannot_be_told_apart_is_refused():
    partly = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clone"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0}]}],
    }
    with pytest.raises(FailedPrecondition, match="allows clone but for some arguments"):
        telling(partly, NotifyMode.RECORD, "/s", "x86_64")
    with pytest.raises(FailedPrecondition, match="listener of its own"):
        telling({**OPEN, "listenerPath": "/mine"}, NotifyMode.LOG, "/s", "x86_64")


@given(st.sets(st.sampled_from(sorted(NAMES))), st.sampled_from([None, DEFAULT, OPEN]))
def test_a_recordings_profile_allows_what_was_called_and_never_more_than_before(calls, base):
    recording = telling(base, NotifyMode.RECORD, "/s", "x86_64")
    profile = minimal(recording, calls)
    check_profile(profile, "x")
    assert "listenerPath" not in profile
    allowed = by_action(profile, "SCMP_ACT_ALLOW")
    before = told(recording) | UNTOLD
    assert allowed == (calls | RUNTIME_CALLS) & before
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert json.loads(json.dumps(profile)) == profile


def test_calls_with_arguments_keep_their_rules():
    profile = minimal(telling(DEFAULT, NotifyMode.RECORD, "/s", "x86_64"), {"clone", "socket"})
    for name in ("clone", "socket"):
        mine = [rule for rule in profile["syscalls"] if name in rule["names"]]
        assert mine == [{**rule, "names": [name]} for rule in DEFAULT["syscalls"] if name in rule["names"]]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in profile["syscalls"]


def test_a_runtime_that_cannot_tell_refuses_by_name():
    check_mode(None, "runsc", able=False)
    check_mode(NotifyMode.STOP, "runc", able=True)
    with pytest.raises(FailedPrecondition, match="runtime handler 'runsc' cannot tell of system calls"):
        check_mode(NotifyMode.STOP, "runsc", able=False)
