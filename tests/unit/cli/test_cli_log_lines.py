from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli.log_lines import LogEntry, Renderer, Splitter, parse
from noded.errors import DataLoss

TIME = "2026-01-02T03:04:05.678901234Z"
contents = st.binary(max_size=200).map(lambda content: content.replace(b"\n", b""))
entries = st.builds(
    LogEntry,
    time=st.just(TIME),
    stream=st.sampled_from(["stdout", "stderr"]),
    partial=st.booleans(),
    content=contents,
)


def written(entry: LogEntry) -> bytes:
    tag = b"P" if entry.partial else b"F"
    return b" ".join((entry.time.encode(), entry.stream.encode(), tag, entry.content))


@given(entries)
def test_a_written_entry_is_parsed_back(entry):
    assert parse(written(entry)) == entry


@given(st.lists(entries), st.data())
def test_lines_survive_any_cut_of_the_stream(wanted, data):
    stream = b"".join(written(entry) + b"\n" for entry in wanted)
    splitter, lines, position = Splitter(), [], 0
    while position < len(stream):
        length = data.draw(st.integers(1, len(stream) - position))
        lines += splitter.feed(stream[position : position + length])
        position += length
    assert [parse(line) for line in lines] == wanted


def test_further_tags_are_ignored():
    assert parse(f"{TIME} stderr F:new:tags text with blanks".encode()).content == b"text with blanks"


def test_an_empty_line_of_a_container_is_an_entry_without_content():
    assert parse(f"{TIME} stdout F ".encode()).content == b""


@pytest.mark.parametrize(
    "line", [b"", b"plain text", f"{TIME} stdin F x".encode(), f"{TIME} stdout X x".encode()]
)
def test_anything_else_is_refused_and_shown(line):
    with pytest.raises(DataLoss, match="not a line of a CRI log"):
        parse(line)


def test_partial_entries_are_joined_without_a_newline():
    renderer = Renderer()
    parts = [LogEntry(TIME, "stdout", True, b"ab"), LogEntry(TIME, "stdout", False, b"cd")]
    assert b"".join(renderer.render(part) for part in parts) == b"abcd\n"


def test_a_timestamp_stands_before_each_line_not_before_each_part():
    renderer = Renderer(timestamps=True)
    parts = [
        LogEntry(TIME, "stdout", True, b"ab"),
        LogEntry(TIME, "stderr", False, b"other stream"),
        LogEntry(TIME, "stdout", False, b"cd"),
    ]
    shown = [renderer.render(part) for part in parts]
    assert shown == [f"{TIME} ab".encode(), f"{TIME} other stream\n".encode(), b"cd\n"]
