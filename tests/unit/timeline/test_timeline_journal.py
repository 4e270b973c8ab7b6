"""The journal is bounded, and readable whatever was cut off."""

from __future__ import annotations

from timeline_values import call, started

from noded.model.timeline import merge
from noded.tracing.journal import Journal


def numbered(number: int):
    return call(
        "RunPodSandbox", number, number + 1, [(0, "record", number, number + 1)], id_=f"{number + 1:016x}"
    )


def test_what_was_written_is_read_by_the_next_daemon(tmp_path):
    first = Journal(tmp_path / "j")
    first.write(started().calls)
    first.close()
    second = Journal(tmp_path / "j")
    second.write([numbered(1)])
    second.close()
    assert len(list((tmp_path / "j").iterdir())) == 1
    assert Journal(tmp_path / "j").read() == [*started().calls, numbered(1)]


def test_it_never_takes_more_than_its_bytes_and_keeps_the_newest(tmp_path):
    journal = Journal(tmp_path / "j", files=3, file_bytes=4000)
    for number in range(200):
        journal.write([numbered(number)])
    sizes = [path.stat().st_size for path in (tmp_path / "j").iterdir()]
    assert len(sizes) == 3
    assert max(sizes) <= 4000
    kept = journal.read()
    assert kept == [numbered(number) for number in range(200 - len(kept), 200)]
    assert len(kept) > 15


def test_a_burst_of_calls_is_bounded_too(tmp_path):
    journal = Journal(tmp_path / "j", files=3, file_bytes=4000)
    journal.write(numbered(number) for number in range(200))
    assert max(path.stat().st_size for path in (tmp_path / "j").iterdir()) <= 4000
    assert journal.read()[-1] == numbered(199)


def test_a_line_that_a_crash_cut_off_costs_no_other(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.write([numbered(1), numbered(2)])
    journal.close()
    (path,) = (tmp_path / "j").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    journal = Journal(tmp_path / "j")
    journal.write([numbered(3)])
    assert journal.read() == [numbered(1), numbered(3)]
    path.write_bytes(b'\x00\xff{"call": 1}\n[]\n' + path.read_bytes())
    assert [one.id for one in merge(journal.read())] == [numbered(1).id, numbered(3).id]


def test_only_lines_with_the_text_are_read(tmp_path):
    journal = Journal(tmp_path / "j")
    journal.write([*started().calls, call("RunPodSandbox", 1, 2, subject=None)])
    assert len(journal.read(["u-1"])) == 4
    assert journal.read(['no "such\\ thing']) == []
