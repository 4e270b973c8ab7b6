"""What a container wrote and removed, as a tar, and back into a root file system that is mounted."""

from __future__ import annotations

import gzip
import os
import socket

import pytest
import trio

from noded.errors import FailedPrecondition
from noded.host import mounts
from noded.images.overlay import Writable, mount_overlay
from noded.images.rootfs_diff import write_diff
from noded.images.unpack.client import Unpacker
from noded.images.unpack.limits import UnpackLimits
from tests.support.layer_cases import TAR, directory, file, symlink, tar

pytestmark = pytest.mark.root


@pytest.fixture
def overlay(tmp_path):
    """(lower, upper, merged) of a mounted overlay with some files in the lower directory."""
    lower, merged = tmp_path / "lower", tmp_path / "merged"
    writable = Writable(tmp_path / "upper", tmp_path / "work")
    for path in (lower, merged, writable.upper, writable.work):
        path.mkdir()
    (lower / "etc").mkdir()
    (lower / "etc" / "group").write_text("g")
    (lower / "etc" / "passwd").write_text("p")
    (lower / "opt" / "old").mkdir(parents=True)
    (lower / "opt" / "old" / "one").write_text("1")
    (lower / "opt" / "two").write_text("2")
    (lower / "var").mkdir()
    (lower / "link").symlink_to("var")
    mount_overlay(merged, [lower], tmp_path, writable, "")
    try:
        yield lower, writable.upper, merged
    finally:
        mounts.unmount(merged, detach=True)


def diff(upper, lower, target):
    async def main():
        with target.open("wb") as out:
            return await trio.to_thread.run_sync(write_diff, upper, [lower], out)

    return sorted(trio.run(main))


def apply(archive, root):
    async def main():
        async with Unpacker(1) as unpacker:
            fd = os.open(archive, os.O_RDONLY)
            try:
                await unpacker.unpack(fd, root, TAR, "", UnpackLimits(in_place=True))
            finally:
                os.close(fd)

    trio.run(main)


def test_all_that_was_changed_comes_back(overlay, tmp_path):
    lower, upper, merged = overlay
    (merged / "etc" / "group").unlink()
    (merged / "etc" / "passwd").write_text("changed")
    # A directory removed and made anew hides what it held: overlayfs says so with an attribute.
    (merged / "opt" / "old" / "one").unlink()
    (merged / "opt" / "old").rmdir()
    (merged / "opt" / "two").unlink()
    (merged / "opt").rmdir()
    (merged / "opt").mkdir(0o750)
    (merged / "opt" / "new").write_text("new")
    os.link(merged / "opt" / "new", merged / "hard")
    os.mkfifo(merged / "fifo")
    os.setxattr(merged / "hard", "user.note", b"kept")
    os.chown(merged / "hard", 1000, 2000)
    (merged / "hard").chmod(0o4711)
    (merged / "out").symlink_to("/etc/shadow")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(merged / "socket"))
    archive = tmp_path / "diff.tar"
    assert diff(upper, lower, archive) == ["etc/group", "opt/old", "opt/two"]

    again = tmp_path / "again"
    again.mkdir()
    apply(archive, again)
    assert (again / "etc" / "passwd").read_text() == "changed"
    assert os.path.samefile(again / "hard", again / "opt" / "new")
    found = (again / "hard").stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 2000, 0o4711)
    assert os.getxattr(again / "hard", "user.note") == b"kept"
    assert (again / "fifo").is_fifo()
    assert os.readlink(again / "out") == "/etc/shadow"
    assert (again / "opt").stat().st_mode & 0o777 == 0o750
    assert not os.path.lexists(again / "socket")


def test_what_is_elsewhere_is_refused_and_not_lost(overlay, tmp_path):
    lower, upper, _ = overlay
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"opt")
    with pytest.raises(FailedPrecondition, match="redirect_dir"):
        diff(upper, lower, tmp_path / "diff.tar")


def test_a_containerd_diff_with_whiteouts_is_applied_to_the_mounted_root(overlay, tmp_path):
    _, _, merged = overlay
    layer = tar(
        directory("etc"),
        file("etc/.wh.group"),
        file("etc/passwd", b"new"),
        file("opt/.wh..wh..opq"),
        file("link/through"),
        file(".wh.nothing"),
        symlink("etc/host", "/etc"),
    )
    archive = tmp_path / "rootfs-diff.tar"
    archive.write_bytes(gzip.compress(layer))
    apply(archive, merged)
    assert sorted(os.listdir(merged / "etc")) == ["host", "passwd"]
    assert (merged / "etc" / "passwd").read_bytes() == b"new"
    assert os.listdir(merged / "opt") == []
    assert (merged / "var" / "through").exists()
