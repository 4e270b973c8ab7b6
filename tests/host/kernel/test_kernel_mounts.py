"""Mounts on the real kernel. Everything happens below the test's own directory."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from noded.errors import FailedPrecondition, InvalidArgument, NodedError, NotFound, Unavailable
from noded.host import files, mounts, userns
from noded.model.pod import IDMapping

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory whose mounts are gone after the test."""
    yield tmp_path
    for point in mounts.mounts_below(tmp_path):
        mounts.unmount(point, detach=True)


def directory(path: Path) -> Path:
    path.mkdir()
    return path


def tmpfs(path: Path) -> Path:
    mounts.mount("tmpfs", directory(path), "tmpfs", mounts.MS_NOSUID, "size=1m")
    return path


def test_a_mount_is_seen_and_gone_after_unmount(place: Path) -> None:
    target = tmpfs(place / "with space\tand\\tab")
    assert mounts.is_mountpoint(target)
    assert mounts.mounts_below(place) == [target]
    mounts.unmount(target)
    assert not mounts.is_mountpoint(target)


def test_unmounting_what_is_not_mounted_or_missing_succeeds(place: Path) -> None:
    mounts.unmount(place)
    mounts.unmount(place / "missing")
    (place / "file").touch()
    mounts.unmount(place / "file" / "below")


def test_unmount_removes_all_that_is_stacked(place: Path) -> None:
    target = tmpfs(place / "t")
    mounts.mount("tmpfs", target, "tmpfs")
    mounts.unmount(target)
    assert not mounts.is_mountpoint(target)


def test_a_busy_mount_is_named_with_what_keeps_it(place: Path) -> None:
    target = tmpfs(place / "t")
    inner = tmpfs(target / "inner")
    with pytest.raises(Unavailable, match=f"unmount {inner} first"):
        mounts.unmount(target)
    mounts.unmount(inner)
    with (target / "open").open("w"), pytest.raises(Unavailable, match="a process uses it"):
        mounts.unmount(target)
    mounts.unmount(target)


def test_detaching_a_busy_mount_succeeds(place: Path) -> None:
    target = tmpfs(place / "t")
    with (target / "open").open("w"):
        mounts.unmount(target, detach=True)
    assert not mounts.is_mountpoint(target)


def test_a_failed_mount_names_target_and_errno(place: Path) -> None:
    with pytest.raises(NotFound, match=f"cannot mount tmpfs on {place}/missing: .*ENOENT"):
        mounts.mount("tmpfs", place / "missing", "tmpfs")
    with pytest.raises(NodedError, match=r"cannot mount nosuchfs on .*ENODEV"):
        mounts.mount("none", place, "nosuchfs")


def test_options_that_the_kernel_would_cut_are_refused(place: Path) -> None:
    with pytest.raises(InvalidArgument, match="its options have"):
        mounts.mount("overlay", place, "overlay", 0, "lowerdir=" + "/x:" * 3000)


def test_an_overlay_of_many_layers_is_mounted_by_the_new_calls(place: Path) -> None:
    layers = [directory(place / ("layer" * 10 + str(n))) for n in range(100)]
    (layers[0] / "top").write_text("0")
    (layers[99] / "bottom").write_text("99")
    target = directory(place / "merged")
    try:
        mounts.mount_filesystem("overlay", target, "overlay", [("lowerdir+", str(layer)) for layer in layers])
    except NodedError as error:
        if "EINVAL" in str(error):
            pytest.skip("lowerdir+ came with Linux 6.5")
        raise
    assert (target / "top").read_text() + (target / "bottom").read_text() == "099"
    assert sum(map(len, map(str, layers))) > 4096


def test_the_file_systems_own_words_are_in_the_error(place: Path) -> None:
    with pytest.raises(NodedError, match=r"option 'nosuchoption=1'.*nosuchoption") as caught:
        mounts.mount_filesystem("tmpfs", directory(place / "t"), "tmpfs", [("nosuchoption", "1")])
    assert "Unknown parameter" in str(caught.value)
    assert mounts.mounts_below(place) == []


def test_a_bind_shows_the_source_and_a_readonly_one_cannot_be_written(place: Path) -> None:
    source = tmpfs(place / "source")
    (source / "file").write_text("content")
    inner = tmpfs(source / "inner")
    plain, readonly, recursive = (directory(place / name) for name in ("plain", "readonly", "recursive"))
    mounts.bind(source, plain)
    (plain / "written").touch()
    mounts.bind(source, readonly, readonly=True)
    assert (readonly / "file").read_text() == "content"
    with pytest.raises(OSError, match="Read-only") as caught:
        (readonly / "written").touch()
    assert caught.value.errno == errno.EROFS
    mounts.bind(source, recursive, recursive=True, readonly=True)
    with pytest.raises(OSError, match="Read-only"):
        (recursive / "inner" / "file").touch()
    (inner / "still-writable").touch()


def test_the_readonly_bind_of_old_kernels_keeps_other_flags(place: Path) -> None:
    source = tmpfs(place / "source")
    target = directory(place / "t")
    mounts._classic_readonly_bind(source, target, "cannot bind")
    flags = os.statvfs(target).f_flag
    assert flags & os.ST_RDONLY
    assert flags & os.ST_NOSUID


def test_a_single_file_can_be_bound(place: Path) -> None:
    (place / "a").write_text("a")
    (place / "b").touch()
    mounts.bind(place / "a", place / "b", readonly=True)
    assert (place / "b").read_text() == "a"


def test_binding_a_missing_source_names_it(place: Path) -> None:
    for readonly in (False, True):
        with pytest.raises(NotFound, match=f"cannot bind {place}/missing on"):
            mounts.bind(place / "missing", place, readonly=readonly)


def test_propagation_is_told_of_the_mount_that_contains_a_path(place: Path) -> None:
    target = tmpfs(place / "t")
    below = directory(target / "dir")
    mounts.make_private(target)
    assert mounts.propagation(below) == "private"
    mounts.make_shared(target)
    assert mounts.propagation(below) == "shared"
    peer = directory(place / "peer")
    mounts.bind(target, peer)
    mounts.make_slave(peer)
    assert mounts.propagation(peer / "dir") == "slave"
    with pytest.raises(FailedPrecondition, match="propagation"):
        mounts.make_shared(below)


def test_a_directory_becomes_a_shared_mount_once_as_ip_netns_does_it(place: Path) -> None:
    path = place / "new" / "netns"
    mounts.ensure_shared_mountpoint(path)
    mounts.ensure_shared_mountpoint(path)
    assert mounts.mounts_below(place) == [path]
    assert mounts.propagation(path) == "shared"
    mounts.make_private(path)
    mounts.ensure_shared_mountpoint(path)
    assert mounts.propagation(path) == "shared"


def test_an_idmapped_bind_shows_translated_owners(place: Path) -> None:
    source = tmpfs(place / "source")
    (source / "root").touch()
    os.chown(source / "root", 0, 0)
    target = directory(place / "t")
    mapping = [IDMapping(host_id=200000, container_id=0, length=1000)]
    with userns.open_mapped_userns(mapping, mapping) as fd:
        mounts.idmap_bind(source, target, fd)
    found = (target / "root").stat()
    assert (found.st_uid, found.st_gid) == (200000, 200000)
    assert (source / "root").stat().st_uid == 0
    with pytest.raises(OSError, match="Read-only"):
        (target / "x").touch()


def test_a_tree_with_a_mount_below_is_not_removed_and_the_mount_is_named(place: Path) -> None:
    root = directory(place / "root")
    (root / "before").touch()
    inner = directory(root / "dir")
    bound = tmpfs(inner / "mounted")
    (bound / "precious").touch()
    with pytest.raises(FailedPrecondition, match=f"{bound} is a mount point"):
        files.remove_tree(root)
    with pytest.raises(FailedPrecondition, match="is a mount point"):
        files.remove_tree(bound)
    assert (root / "before").exists()
    assert (bound / "precious").exists()
    mounts.unmount(bound)
    files.remove_tree(root)


def test_a_bind_of_the_same_file_system_that_appears_meanwhile_is_not_crossed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, source = directory(place / "root"), directory(place / "source")
    (source / "precious").touch()
    mounts.bind(source, directory(root / "bound"))
    # As if the mount came right after the look at the mount table.
    monkeypatch.setattr("noded.host.trees.mounts_below", lambda path: [])
    with pytest.raises(FailedPrecondition, match="root/bound is a mount point"):
        files.remove_tree(root)
    assert (source / "precious").exists()


def test_immutable_files_are_named_when_a_tree_cannot_be_removed(place: Path) -> None:
    victim = directory(place / "root") / "fixed"
    victim.touch()
    if subprocess.run(["chattr", "+i", str(victim)], capture_output=True, check=False).returncode:
        pytest.skip("this file system has no immutable files")
    try:
        with pytest.raises(NodedError, match=f"cannot remove {victim}: .*EPERM"):
            files.remove_tree(place / "root")
    finally:
        subprocess.run(["chattr", "-i", str(victim)], check=True)
    files.remove_tree(place / "root")
