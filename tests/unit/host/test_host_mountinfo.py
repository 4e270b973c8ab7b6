"""The mount table: a wrong parse unmounts or deletes the wrong thing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.host import mountinfo

TABLE = r"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
22 27 0:21 / /proc rw,relatime - proc proc rw
31 27 0:30 / /run rw shared:5 master:2 - tmpfs tmpfs rw,mode=755
40 31 0:40 / /run/a rw master:3 - tmpfs none rw
41 40 0:41 / /run/a/b\040c rw shared:9 propagate_from:2 - tmpfs no\134ne rw
42 31 0:42 /sub /run/ab rw unbindable - ext4 /dev/vdb rw
43 27 0:43 / /run rw - tmpfs hiding rw
"""

path_text = st.text(
    st.characters(codec="utf-8", exclude_characters="\0/", exclude_categories=("Cs",)),
    min_size=1,
    max_size=20,
)


def test_a_line_becomes_an_entry_with_its_peer_groups() -> None:
    entries = mountinfo.parse_mountinfo(TABLE)
    assert [entry.propagation for entry in entries] == [
        "private", "private", "shared", "slave", "shared", "private", "private",
    ]  # fmt: skip
    assert entries[4].mount_point == "/run/a/b c"
    assert entries[4].source == "no\\ne"
    assert entries[2].master == 2
    assert entries[5].root == "/sub"
    assert entries[0].super_options == {"rw", "discard"}


def test_mounts_below_come_in_the_order_in_which_they_can_be_unmounted() -> None:
    assert mountinfo.below(TABLE, "/run") == [Path("/run/ab"), Path("/run/a/b c"), Path("/run/a")]


def test_a_name_that_merely_begins_alike_is_not_below() -> None:
    assert mountinfo.below(TABLE, "/run/a") == [Path("/run/a/b c")]


def test_everything_is_below_the_root_but_the_root_itself() -> None:
    assert len(mountinfo.below(TABLE, "/")) == 6


def test_the_holder_of_a_path_is_the_mount_that_resolution_ends_in() -> None:
    table = mountinfo.parse_mountinfo(
        "9 1 0:9 / / rw - ext4 root rw\n10 9 0:10 / /run rw - tmpfs run rw\n"
        "11 10 0:11 / /run/a rw - tmpfs a rw\n"
    )

    def source(path: str) -> str:
        found = mountinfo.holder(table, path)
        assert found is not None
        return found.source

    assert [source(path) for path in ("/", "/etc/x", "/run", "/run/ab", "/run/a", "/run/a/b")] == [
        "root", "root", "run", "run", "a", "a",
    ]  # fmt: skip


def test_a_mount_over_another_hides_what_is_mounted_below_it() -> None:
    table = mountinfo.parse_mountinfo(
        "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /m rw - tmpfs b rw\n3 2 0:3 / /m/deep rw - tmpfs c rw\n"
        "4 2 0:4 / /m rw - tmpfs over rw\n"
    )
    found = mountinfo.holder(table, "/m/deep/file")
    assert found is not None
    assert found.source == "over"


def test_an_empty_table_has_no_holder() -> None:
    assert mountinfo.holder([], "/x") is None


@pytest.mark.parametrize("line", ["", "1 2 3", "x 1 0:1 / / rw - a b c", "1 2 0:1 / / rw no separator here"])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any
        mountinfo.parse_line(line)


@given(path_text)
def test_escaping_is_undone_by_unescaping(name: str) -> None:
    escaped = mountinfo.escape(name)
    assert not set(escaped) & set(" \t\n")
    assert mountinfo.unescape(escaped) == name


@given(st.lists(path_text.map(lambda name: "/" + name), max_size=8, unique=True), path_text)
def test_any_mount_point_survives_the_table(points: list[str], source: str) -> None:
    text = "".join(
        f"{n + 2} 1 0:1 / {mountinfo.escape(point)} rw shared:{n + 1} - tmpfs {mountinfo.escape(source)} rw\n"
        for n, point in enumerate(points)
    )
    entries = mountinfo.parse_mountinfo(text)
    assert [entry.mount_point for entry in entries] == points
    assert all(entry.source == source for entry in entries)
    for point in points:
        assert [entry.mount_point for entry in mountinfo.entries_mentioning(text, point)].count(point) == 1
