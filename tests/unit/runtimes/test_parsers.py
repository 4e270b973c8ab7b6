"""What runtimes and conmon print, as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, NotFound, ResourceExhausted
from noded.host.processes import ProcessIdentity
from noded.runtimes.conmon import parse_reply
from noded.runtimes.failures import ending, plain_words, runtime_error
from noded.runtimes.features import (
    features_from_json,
    features_from_table,
    limited_by_kernel,
    parse_version,
    version_tuple,
)
from noded.runtimes.monitor import parse_exit_code
from noded.runtimes.quirks import FeatureTable, OciQuirks
from noded.runtimes.records import TaskRecord, read_record, write_record
from noded.runtimes.wrapper import wrapper_script

QUIRKS = OciQuirks(program="runc", package="runc")
LOGRUS = (
    rb'time="2026-11-22T03:23:48Z" level=error '
    rb'msg="runc create failed: exec: \"nope\": executable file not found in $PATH"'
)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (b"", ""),
        (b"plain text\n", "plain text"),
        (LOGRUS, 'runc create failed: exec: "nope": executable file not found in $PATH'),
        (b'{"level":"error","msg":"a \\"b\\""}\n', 'a "b"'),
        (b'time="x" level=warning msg=careful\ntime="x" level=error msg="broken"\n', "broken"),
        (b'time="x" level=warning msg=careful\n', "careful"),
        (b"same\nsame\nother\n", "same; other"),
        (b'{"level": \n', '{"level":'),
        (rb'time="x" level=error msg="go \a escape"', r"go \a escape"),
    ],
)
def test_the_runtime_s_own_words_are_found(output, words):
    assert plain_words(output) == words


@given(st.binary(max_size=300))
def test_any_output_becomes_one_line(output):
    assert "\n" not in plain_words(output)
    assert len(plain_words(b"x" * 100_000)) < 2100


@pytest.mark.parametrize(
    ("output", "kind", "hint"),
    [
        (LOGRUS, FailedPrecondition, "check command and PATH"),
        (b"executable file `nope` not found in $PATH: No such file or directory", FailedPrecondition, "PATH"),
        (b"container does not exist", NotFound, "does not know"),
        (b"error opening file `/run/x/status`: No such file or directory", NotFound, "does not know"),
        (b"write /sys/fs/cgroup/x: no space left on device", ResourceExhausted, "free space"),
        (b"can't get final child's PID from pipe: EOF", FailedPrecondition, "CAP_SYS_RESOURCE"),
        (b"cannot exec in a stopped container", FailedPrecondition, "state"),
        (b"exec /bin/x: exec format error", FailedPrecondition, "architecture"),
        (b'error mounting "/x" to rootfs: "/y" does not exist', FailedPrecondition, "/y"),
        (b"", FailedPrecondition, "exit status 1"),
    ],
)
def test_a_failure_says_what_to_do(output, kind, hint):
    error = runtime_error("runc could not create container c1", output, ending(1))
    assert type(error) is kind
    assert str(error).startswith("runc could not create container c1: ")
    assert hint in str(error)


def test_versions_are_read_from_every_runtime():
    assert parse_version("runc version 1.1.5+ds1\ncommit: x\nspec: 1.0.2-dev\n") == ("1.1.5+ds1", "1.0.2-dev")
    assert parse_version("crun version 1.8.1\ncommit: f8\nspec: 1.0.0\n") == ("1.8.1", "1.0.0")
    assert parse_version("runsc version release-20240101.0\nspec: 1.1.0\n") == ("20240101.0", "1.1.0")
    assert parse_version("youki version: 0.3.0") == ("0.3.0", "")
    assert parse_version("") == ("", "")


@given(st.lists(st.integers(0, 999), min_size=1, max_size=4), st.sampled_from(["", "+ds1", "-rc.1", "~x"]))
def test_a_version_is_its_leading_numbers(numbers, rest):
    assert version_tuple(".".join(map(str, numbers)) + rest) == tuple(numbers)


def test_a_version_of_debian_s_that_is_a_date_is_that_date():
    assert version_tuple("0.0~20221219.0") == (20221219, 0)
    assert version_tuple("20230214.0") == (20230214, 0)


def test_a_release_without_features_verb_has_what_the_table_says():
    table = FeatureTable(recursive_read_only_mounts=(1, 4), idmap_mounts=(1, 8, 1))
    old, new = (features_from_table(version, table, QUIRKS) for version in ("1.4.2", "1.10"))
    assert (old.recursive_read_only_mounts, old.idmap_mounts, old.user_namespaces) == (True, False, False)
    assert (new.recursive_read_only_mounts, new.idmap_mounts) == (True, True)
    assert not features_from_table("", table, QUIRKS).recursive_read_only_mounts
    assert features_from_table("", table, QUIRKS).waiting_reads  # of all releases
    assert not features_from_table("20990101.0", table, QUIRKS).forwards  # of none


def test_features_are_read_from_the_runtime_s_document():
    document = {
        "ociVersionMax": "1.2.0",
        "mountOptions": ["ro", "rro"],
        "linux": {"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": True}}},
        "annotations": {"org.opencontainers.runc.checkpoint.enabled": "true"},
    }
    features = features_from_json("1.2.0", json.dumps(document).encode(), QUIRKS)
    assert features.idmap_mounts
    assert features.user_namespaces
    assert features.recursive_read_only_mounts
    assert features.checkpoint
    assert features.highest_oci_version == "1.2.0"
    del document["linux"]["mountExtensions"]
    assert not features_from_json("1.1.5", json.dumps(document).encode(), QUIRKS).user_namespaces


@pytest.mark.parametrize("output", [b"", b"[]", b"{}", b"Usage: runsc"])
def test_what_is_not_a_features_document_is_refused(output):
    with pytest.raises(ValueError):  # noqa: PT011 - any
        features_from_json("1", output, QUIRKS)


def test_an_old_kernel_takes_abilities_away():
    document = {"ociVersionMax": "1.2.0", "mountOptions": ["rro"], "linux": {"namespaces": ["user"],
                "mountExtensions": {"idmap": {"enabled": True}}}}  # fmt: skip
    features = features_from_json("1.2.0", json.dumps(document).encode(), QUIRKS)
    old = limited_by_kernel(features, (5, 10), user_namespaces=True)
    assert [old.recursive_read_only_mounts, old.idmap_mounts, old.user_namespaces] == [False] * 3
    middle = limited_by_kernel(features, (5, 15), user_namespaces=True)
    assert (middle.idmap_mounts, middle.user_namespaces) == (True, False)
    assert not limited_by_kernel(features, (6, 8), user_namespaces=False).user_namespaces
    assert limited_by_kernel(features, (6, 8), user_namespaces=True) == features


def test_conmon_s_answer_is_read_in_both_api_versions():
    assert parse_reply(b'{"pid": 31613}\n') == (31613, b"")
    assert parse_reply(b'{"data": 7}\n') == (7, b"")
    assert parse_reply(b'{"pid": -1, "message": "no"}\n') == (-1, b"no")


@given(st.binary(max_size=100))
def test_any_answer_of_a_dying_monitor_is_a_failure_or_a_pid(line):
    pid, _ = parse_reply(line)
    assert isinstance(pid, int)


@pytest.mark.parametrize(
    ("text", "code"), [("0", 0), ("137", 137), ("-1", 255), ("", 255), ("x", 255), ("300", 255)]
)
def test_an_exit_file_holds_a_code_or_counts_as_unknown(text, code):
    assert parse_exit_code(text) == code


_IDENTITIES = st.builds(ProcessIdentity, st.integers(1, 1 << 22), st.integers(0, 1 << 60))


@given(st.builds(TaskRecord, log_path=st.text(), monitor=_IDENTITIES, init=st.none() | _IDENTITIES))
def test_a_record_survives_its_file_format(record):
    assert TaskRecord.from_json(record.to_json()) == record


def test_a_broken_record_is_no_record(tmp_path):
    assert read_record(tmp_path) is None
    for data in (b"", b"{", b"[]", b'{"log_path": "x"}', b'{"log_path": "", "monitor": [1]}'):
        (tmp_path / "task.json").write_bytes(data)
        assert read_record(tmp_path) is None
    write_record(tmp_path, TaskRecord("", ProcessIdentity(1, 2)))
    assert read_record(tmp_path) == TaskRecord("", ProcessIdentity(1, 2))


def test_the_wrapper_quotes_the_program():
    assert " '/opt/my runtimes/crun' " in wrapper_script("/opt/my runtimes/crun")
