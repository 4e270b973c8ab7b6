"""The pure parts of the shim driver."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import (
    FailedPrecondition,
    NotFound,
    Unavailable,
    Unimplemented,
)
from noded.host.processes import ProcessIdentity
from noded.model.pod import PodConfig, Resources, SandboxKey
from noded.runtimes.shim_bootstrap import Endpoint, parse_answer, remove_socket, usual_address
from noded.runtimes.shim_log import ENTRY_BYTES, LogFile, entries, timestamp
from noded.runtimes.shim_quirks import sizing_annotations
from noded.runtimes.shim_record import ShimRecord, read_shim, write_shim
from noded.runtimes.shim_service import error_of
from noded.runtimes.ttrpc_client import Refused, socket_path

ENTRY = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)")


def text_of(log):
    """What a reader of the CRI format makes of a log."""
    out = b""
    for line in log.split(b"\n")[:-1]:
        found = ENTRY.fullmatch(line)
        assert found, line
        out += found[3] + (b"\n" if found[2] == b"F" else b"")
    return out


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_a_log_holds_exactly_what_was_written_however_it_was_cut(pieces):
    log = b"".join(entries("stdout", piece, 1) for piece in pieces)
    assert text_of(log) == b"".join(pieces)


@given(st.integers(0, 3 * ENTRY_BYTES), st.booleans())
def test_long_lines_are_cut_into_parts(length, ended):
    data = b"x" * length + (b"\n" if ended else b"")
    log = entries("stderr", data, 1)
    assert text_of(log) == data
    assert all(len(ENTRY.fullmatch(line)[3]) <= ENTRY_BYTES for line in log.split(b"\n")[:-1])


def test_an_entry_looks_as_the_format_says():
    now = 1_795_311_286_530_327_129
    assert entries("stdout", b"a\n\nb", now) == (
        b"2026-11-22T01:34:46.530327129Z stdout F a\n"
        b"2026-11-22T01:34:46.530327129Z stdout F \n"
        b"2026-11-22T01:34:46.530327129Z stdout P b\n"
    )
    assert timestamp(1) == b"1970-01-01T00:00:00.000000001Z"


def test_a_log_file_is_reopened_and_appended_to(tmp_path):
    path = tmp_path / "x.log"
    log = LogFile(path)
    log.write(b"lost: not open yet\n")
    log.reopen()
    log.write(b"one\n")
    path.rename(tmp_path / "x.log.1")
    log.write(b"two\n")
    log.reopen()
    log.write(b"three\n")
    log.close()
    log.close()
    assert (tmp_path / "x.log.1").read_bytes() == b"one\ntwo\n"
    assert path.read_bytes() == b"three\n"
    assert path.stat().st_mode & 0o777 <= 0o640


def test_a_log_begins_anew_at_its_largest_size(tmp_path):
    path = tmp_path / "x.log"
    log = LogFile(path, max_bytes=20_000)
    log.reopen()
    for letter in (b"a", b"b", b"c", b"d"):
        log.write(letter * 7_999 + b"\n")
    assert path.read_bytes() == b"c" * 7_999 + b"\n" + b"d" * 7_999 + b"\n"
    log.write(b"e" * 30_000)  # too much for any log: written whole
    assert path.read_bytes() == b"e" * 30_000
    log.close()
    assert [one.name for one in tmp_path.iterdir()] == ["x.log"]


def test_a_log_that_cannot_be_written_loses_entries_and_recovers(tmp_path):
    log = LogFile(Path("/dev/full"))
    log.reopen()
    log.write(b"one\n")
    log.path = tmp_path / "y.log"
    log.reopen()
    log.write(b"two\n")
    log.close()
    assert log.path.read_bytes() == b"two\n"


@pytest.mark.parametrize(
    ("answer", "endpoint"),
    [
        (b"unix:///run/containerd/s/abc", Endpoint("unix:///run/containerd/s/abc", 2)),
        (b" unix:///run/s\n", Endpoint("unix:///run/s", 2)),
        (b'{"version":3,"address":"unix:///run/s","protocol":"ttrpc"}', Endpoint("unix:///run/s", 3)),
        (b'{"version":2,"address":"unix:///run/s"}', Endpoint("unix:///run/s", 2)),
    ],
)
def test_both_forms_of_an_answer_to_start_are_understood(answer, endpoint):
    assert parse_answer(answer) == endpoint


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"", Unavailable, "no address"),
        (b"hello", Unavailable, "not the address of a unix socket"),
        (b"tcp://1.2.3.4:5", Unavailable, "not the address of a unix socket"),
        (b"unix:///" + b"x" * 200, Unavailable, "too long"),
        (b'{"version":', Unavailable, "broken"),
        (b'{"address":5', Unavailable, "broken"),
        (b'{"version":9,"address":"unix:///s"}', Unimplemented, "version 9"),
        (b'{"version":3,"address":"unix:///s","protocol":"grpc"}', Unimplemented, "'grpc'"),
    ],
)
def test_a_bad_answer_to_start_is_refused_with_its_words(answer, kind, words):
    with pytest.raises(kind, match=words):
        parse_answer(answer)


@given(st.binary(max_size=100))
def test_any_answer_to_start_is_understood_or_refused(answer):
    with suppress(Unavailable, Unimplemented):
        parse_answer(answer)


def test_abstract_sockets_have_addresses_too():
    assert socket_path("unix://@/containerd-shim/x") == "\0/containerd-shim/x"


def test_the_usual_address_is_that_of_containerd_s_library():
    assert len(usual_address("abc").removeprefix("unix:///run/containerd/s/")) == 64


def test_only_sockets_are_removed(tmp_path):
    (tmp_path / "file").write_text("")
    remove_socket(f"unix://{tmp_path}/file")
    remove_socket(f"unix://{tmp_path}/missing")
    remove_socket("nonsense")
    assert (tmp_path / "file").exists()


def test_a_record_survives_and_nonsense_is_no_record(tmp_path):
    record = ShimRecord("unix:///s", 3, ProcessIdentity(5, 6))
    write_shim(tmp_path, record)
    assert read_shim(tmp_path) == record
    for text in ("", "[]", "{}", '{"address":1,"version":2,"process":5}'):
        (tmp_path / "shim.json").write_text(text)
        assert read_shim(tmp_path) is None


def pod(resources=None, overhead=None):
    return PodConfig(SandboxKey("n", "p", "u", 0), resources=resources, overhead=overhead)


def test_the_size_of_a_pod_is_told_in_annotations():
    config = pod(
        Resources(cpu_period_us=100_000, cpu_quota_us=50_000, cpu_shares=512, memory_limit_bytes=1 << 30),
        Resources(cpu_period_us=50_000, cpu_quota_us=12_500, memory_limit_bytes=1 << 20),
    )
    prefix = "io.kubernetes.cri.sandbox-"
    assert sizing_annotations(config, with_overhead=False) == {
        f"{prefix}cpu-period": "100000",
        f"{prefix}cpu-quota": "50000",
        f"{prefix}cpu-shares": "512",
        f"{prefix}memory": str(1 << 30),
    }
    larger = sizing_annotations(config, with_overhead=True)
    assert larger[f"{prefix}cpu-quota"] == "75000"
    assert larger[f"{prefix}memory"] == str((1 << 30) + (1 << 20))


def test_a_pod_without_limits_is_told_no_size():
    assert sizing_annotations(pod(), with_overhead=True) == {}
    assert sizing_annotations(pod(Resources(), Resources(memory_limit_bytes=5)), with_overhead=True) == {}


def test_a_shim_s_status_decides_the_error_and_else_its_words():
    assert isinstance(error_of("could not x", Refused(5, "gone")), NotFound)
    found = error_of("could not x", Refused(2, 'exec: "sh": executable file not found in $PATH'))
    assert isinstance(found, FailedPrecondition)
    assert "check command and PATH" in str(found)
    assert "could not x" in str(error_of("could not x", Refused(13, "")))


def test_records_are_json(tmp_path):
    write_shim(tmp_path, ShimRecord("unix:///s", 2, ProcessIdentity(1, 2)))
    assert json.loads((tmp_path / "shim.json").read_text())["process"] == [1, 2]
