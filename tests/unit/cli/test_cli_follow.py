from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli import follow


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_only_complete_lines_are_read(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("one\ntw")
    reader = follow.LogReader(log)
    assert list(reader.read()) == [b"one"]
    append(log, "o\n")
    assert list(reader.read()) == [b"two"]
    reader.close()


def test_a_rotated_log_is_read_to_its_end_before_the_new_one(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("one\n")
    reader = follow.LogReader(log)
    assert list(reader.read()) == [b"one"]
    append(log, "two\n")
    log.rename(tmp_path / "0.log.1")
    append(tmp_path / "0.log.1", "three\n")
    log.write_text("four\n")
    assert list(reader.read()) == [b"two", b"three", b"four"]
    reader.close()


def test_between_rename_and_new_file_the_old_one_is_followed(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("one\n")
    reader = follow.LogReader(log)
    log.rename(tmp_path / "0.log.1")
    assert list(reader.read()) == [b"one"]
    append(tmp_path / "0.log.1", "two\n")
    assert list(reader.read()) == [b"two"]
    log.write_text("three\n")
    assert list(reader.read()) == [b"three"]
    reader.close()


def test_following_ends_when_the_exit_is_on_record(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("one\n")
    read, write = os.pipe()
    os.write(write, b"x")
    asked = []

    def finished() -> bool:
        # conmon's last line comes after the death and before the record of it.
        if not asked:
            append(log, "last\n")
        asked.append(True)
        return len(asked) > 1

    try:
        assert list(follow.follow(log, 0, read, finished)) == [b"one", b"last"]
    finally:
        os.close(read)
        os.close(write)


def test_following_sees_what_is_written_while_it_waits(tmp_path):
    log = tmp_path / "0.log"
    log.write_text("one\n")
    lines = follow.follow(log, 0, None, lambda: False)
    assert next(lines) == b"one"
    append(log, "two\n")
    assert next(lines) == b"two"
    log.rename(tmp_path / "0.log.1")
    log.write_text("three\n")
    assert next(lines) == b"three"
    lines.close()


def test_a_missing_directory_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        follow.DirectoryWatch(tmp_path / "gone")
    assert caught.value.filename == str(tmp_path / "gone")


@given(st.lists(st.binary(max_size=5).map(lambda b: b.replace(b"\n", b"")), max_size=30), st.integers(0, 40))
def test_the_tail_is_the_last_complete_lines(lines, count):
    content = b"".join(line + b"\n" for line in lines)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        offset = follow.tail(Path(file.name), count)
    wanted = lines[-count:] if count else []
    assert content[offset:] == b"".join(line + b"\n" for line in wanted)


def test_the_tail_of_a_log_larger_than_a_block(tmp_path):
    log = tmp_path / "0.log"
    lines = [f"line {number} {'x' * 100}\n" for number in range(5000)]
    log.write_text("".join(lines))
    assert log.read_text()[follow.tail(log, 3000) :] == "".join(lines[2000:])
