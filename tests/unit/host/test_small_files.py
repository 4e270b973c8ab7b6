from __future__ import annotations

from pathlib import Path

from noded.host.mountinfo import is_mountpoint, parse_mountinfo, read_mountinfo
from noded.host.small_files import read_small, write_small
from noded.host.statx import is_mount_root


def test_a_file_is_read_whole_however_the_kernel_cuts_it(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 300_000)
    assert len(read_small(tmp_path / "file")) == 300_000
    assert read_small("/proc/self/mountinfo").decode("utf-8", "surrogateescape") == read_mountinfo()


def test_a_write_replaces_what_a_short_file_held(tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    write_small(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_both_ways_to_know_a_mount_point_agree(tmp_path):
    points = {entry.mount_point for entry in parse_mountinfo(read_mountinfo())}
    assert all(is_mount_root(Path(point)) in (True, None) for point in ("/proc", "/dev") if point in points)
    (tmp_path / "link").symlink_to("/proc")
    for path in (tmp_path, tmp_path / "link", tmp_path / "missing", tmp_path / "missing" / "deeper"):
        assert is_mount_root(path) in (False, None)
        assert not is_mountpoint(path)
