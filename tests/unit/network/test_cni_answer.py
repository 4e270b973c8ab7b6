from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, Unavailable
from noded.network.answer import Answer, Refusal, failure, refusal, result, spoken_versions


def refused(code=1, stdout=b"", stderr=b""):
    why = refusal(Answer(code, stdout, stderr))
    assert why is not None
    return why


def error(**fields):
    return json.dumps({"cniVersion": "1.0.0", **fields}).encode()


def test_exit_status_0_is_success_whatever_was_printed():
    assert refusal(Answer(0, error(code=7, msg="x"), b"warning")) is None


def test_the_plugins_own_words_are_kept():
    assert refused(stdout=error(code=11, msg="busy", details="lock held\nby 7")) == Refusal(
        11, "busy: lock held by 7"
    )


def test_a_crash_is_told_by_signal_and_last_words():
    assert refused(-11, b"", b"panic: oops\n") == Refusal(None, "killed by SIGSEGV: panic: oops")
    assert refused(2, b"no json", b"") == Refusal(None, "exit status 2: no json")
    assert refused(2) == Refusal(None, "exit status 2")
    assert refused(-64, b"", b"").message in ("killed by SIGRTMAX", "killed by signal 64")


def test_endless_words_are_cut():
    assert len(refused(stdout=error(code=100, msg="x" * 9999)).message) < 1100
    assert len(refused(stderr=b"y" * 99999).message) < 1100


@pytest.mark.parametrize(
    ("code", "kind"), [(1, FailedPrecondition), (2, FailedPrecondition), (7, FailedPrecondition),
                       (11, Unavailable), (50, Unavailable), (100, Unavailable), (None, Unavailable)]
)  # fmt: skip
def test_a_failure_names_plugin_verb_network_code_and_class(code, kind):
    why = failure("ADD", "bridge", "podnet", Refusal(code, "words"))
    assert type(why) is kind
    said = f"code {code}, words" if code is not None else "words"
    assert str(why).startswith(f"CNI plugin 'bridge' failed ADD of network 'podnet': {said}")


@pytest.mark.parametrize(
    ("stdout", "words"),
    [
        (b"", "printed no result"),
        (b" \n", "printed no result"),
        (b"hello", "no JSON"),
        (b"[]", "no object"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
    ],
)
def test_an_unusable_result_is_described(stdout, words):
    with pytest.raises(ValueError, match=words):
        result(Answer(0, stdout, b""))


def test_a_cut_result_is_not_parsed():
    with pytest.raises(ValueError, match="longer than 1 MiB"):
        result(Answer(0, b"{}", b"", stdout_cut=True))


def test_versions_are_known_only_when_the_plugin_says_them():
    assert spoken_versions(Answer(0, b'{"supportedVersions": ["1.0.0", 7]}', b"")) == {"1.0.0"}
    assert spoken_versions(Answer(0, b"{}", b"")) is None
    assert spoken_versions(Answer(1, b'{"supportedVersions": ["1.0.0"]}', b"")) is None
    assert spoken_versions(Answer(0, b"nonsense", b"")) is None


@given(st.integers(-70, 255), st.binary(max_size=200), st.binary(max_size=200))
def test_any_answer_is_success_or_a_one_line_refusal(code, stdout, stderr):
    why = refusal(Answer(code, stdout, stderr))
    if code == 0:
        assert why is None
    else:
        assert why is not None
        assert "\n" not in str(failure("DEL", "p", "n", why))
