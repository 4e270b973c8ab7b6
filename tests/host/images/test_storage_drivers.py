"""The suite that every storage driver passes, on each file system that it can stand on."""

# ruff: noqa: ASYNC240 - nothing else runs on the event loops of these tests

from __future__ import annotations

import errno
import os
import select
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from noded.errors import FailedPrecondition
from noded.host import btrfs, mounts
from noded.images.drivers.choose import open_driver
from noded.images.repair import Repairer
from noded.images.snapshots import Snapshots
from noded.model.image import Image
from noded.model.pod import IDMapping, UserNamespace
from tests.support.disks import mounted_disk
from tests.support.layer_cases import (
    Member,
    Store,
    directory,
    file,
    hardlink,
    member,
    scan,
    symlink,
    tar,
    with_store,
)

pytestmark = pytest.mark.root

CASES = [
    ("overlay", "ext4"),
    ("overlay", "xfs"),
    ("overlay", "btrfs"),
    ("fuse-overlayfs", "ext4"),
    ("btrfs", "btrfs"),
    ("vfs", "ext4"),
    ("vfs", "xfs"),
    ("vfs", "btrfs"),
]
USERNS = UserNamespace(uids=(IDMapping(400_000, 0, 65536),), gids=(IDMapping(500_000, 0, 65536),))
MEGABYTE = 1 << 20


def xattrs(name: str, **values: str) -> Member:
    headers = {f"SCHILY.xattr.{key.replace('__', '.')}": value for key, value in values.items()}
    return file(name, b"x", mode=0o755, pax_headers=headers)


LAYERS = [
    tar(
        directory("./", mode=0o755, mtime=4),
        directory("etc", mode=0o750, uid=11, mtime=5),
        file("etc/passwd", b"root:x:0:0", mtime=6),
        file("etc/other", b"o", uid=1000, gid=1001, mode=0o4755),
        directory("gone", mode=0o755),
        file("gone/file", b"g"),
        directory("opaque", mode=0o755),
        file("opaque/lower", b"l"),
        directory("deep/a/b/c", mode=0o711),
        file("deep/a/b/c/big", os.urandom(300_000)),
        file("becomes-directory", b"f"),
        directory("becomes-file"),
        file("becomes-file/x", b"x"),
        symlink("escape", "../../../../etc"),
        file("one", b"linked"),
        hardlink("deep/two", "one"),
        xattrs("marked", user__colour="blue"),
        member("pipe", tarfile.FIFOTYPE, mode=0o640),
        file("odd\udcff\nname", b"odd"),
        file("holes", b"\0" * 2 * MEGABYTE + b"end"),
    ),
    tar(
        file(".wh.gone"),
        directory("opaque", mode=0o700),
        file("opaque/.wh..wh..opq"),
        file("opaque/upper", b"u"),
        file("etc/new", b"n"),
        file("deep/a/.wh.b"),
        directory("becomes-directory"),
        file("becomes-directory/y", b"y"),
        file("becomes-file", b"now a file"),
    ),
    tar(file("gone", b"again, as a file"), directory("deep/a/b"), file("deep/a/b/only", b"1")),
]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with ExitStack() as stack:
        found: dict[str, Path] = {}

        class Disks(dict[str, Path]):
            def __missing__(self, kind: str) -> Path:
                self[kind] = stack.enter_context(mounted_disk(kind, tmp_path_factory.mktemp(kind)))
                return self[kind]

        found = Disks()
        yield found


@pytest.fixture(params=CASES, ids="-on-".join)
def place(request: pytest.FixtureRequest, disks: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """A driver's name, and an empty directory on each of its file systems."""
    yield from in_place(request, disks)


@pytest.fixture(params=[CASES[0], *CASES[3:6]], ids="-on-".join)
def one_place(request: pytest.FixtureRequest, disks: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    """A driver's name, and an empty directory on one of its file systems."""
    yield from in_place(request, disks)


def in_place(request: pytest.FixtureRequest, disks: dict[str, Path]) -> Iterator[tuple[str, Path]]:
    driver, kind = request.param
    if driver == "fuse-overlayfs" and shutil.which("fuse-overlayfs") is None:
        pytest.skip("fuse-overlayfs is not installed: nothing about it was tested")
    with fresh_directory(disks[kind]) as path:
        yield driver, path


@pytest.fixture
def on_btrfs(disks: dict[str, Path]) -> Iterator[Path]:
    with fresh_directory(disks["btrfs"]) as path:
        yield path


class fresh_directory:  # noqa: N801 - a context manager
    def __init__(self, disk: Path) -> None:
        self._path = disk / os.urandom(4).hex()

    def __enter__(self) -> Path:
        self._path.mkdir()
        return self._path

    def __exit__(self, *_: object) -> None:
        assert not mounts.mounts_below(self._path), "the test has left a mount"
        subprocess.run(["rm", "-rf", self._path], check=True)


def with_container(
    place: tuple[str, Path], test: Any, userns: UserNamespace | None = None, quota_bytes: int = 0
) -> None:
    driver, path = place

    async def main(store: Store) -> None:
        image = await store.add(LAYERS, "localhost/a:1")
        snapshots = Snapshots(store.layout, store.layers, driver)
        snapshots.driver.check()
        try:
            await snapshots.prepare("c1", image, userns, quota_bytes=quota_bytes)
            await test(store, snapshots, image)
        finally:
            await snapshots.remove("c1")
        assert not snapshots.mounted("c1")
        assert not store.layout.container_data("c1").exists()
        assert not store.layout.rootfs("c1").exists()

    with_store(path, main)


def test_every_driver_shows_what_overlayfs_shows(place: tuple[str, Path]) -> None:
    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        await store.snapshots.prepare("reference", image, None)
        try:
            ours, reference = scan(store.layout.rootfs("c1")), scan(store.layout.rootfs("reference"))
        finally:
            await store.snapshots.remove("reference")
        assert b"gone" in reference
        assert b"opaque/lower" not in reference
        assert reference[b"deep/two"][-1] == reference[b"one"][-1], "hard links"
        assert ours == reference

    with_container(place, test)


def test_every_driver_keeps_what_a_container_wrote_apart_and_across_a_reboot(
    place: tuple[str, Path],
) -> None:
    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        root = store.layout.rootfs("c1")
        (root / "etc/passwd").write_text("changed")
        (root / "etc/other").unlink()
        (root / "new").write_bytes(os.urandom(MEGABYTE))
        os.sync()
        used_bytes, inodes = await snapshots.usage("c1")
        assert MEGABYTE * 0.9 < used_bytes < MEGABYTE * 1.2
        assert inodes <= 6
        await snapshots.prepare("c2", image, None)
        try:
            other = store.layout.rootfs("c2")
            assert (other / "etc/passwd").read_text() == "root:x:0:0"
            assert (other / "etc/other").exists()
            assert not (other / "new").exists()
        finally:
            await snapshots.remove("c2")
        mounts.unmount(root)
        await snapshots.prepare("c1", image, None)
        assert (root / "etc/passwd").read_text() == "changed"
        assert not (root / "etc/other").exists()
        tree = store.layers.tree(image.layers[0].chain_id)
        assert (tree / "etc/passwd").read_text() == "root:x:0:0"

    with_container(place, test)


def test_every_driver_maps_owners_for_a_pod_with_a_user_namespace(place: tuple[str, Path]) -> None:
    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        root = store.layout.rootfs("c1")
        assert (root.stat().st_uid, root.stat().st_gid) == (400_000, 500_000)
        assert (root / "etc").stat().st_uid == 400_011
        assert (root / "etc/other").stat().st_gid == 501_001
        os.chown(root / "etc/passwd", 400_007, 500_007)
        assert (root / "etc/passwd").stat().st_uid == 400_007

    with_container(place, test, USERNS)


def test_every_driver_makes_a_container_of_an_image_without_layers(one_place: tuple[str, Path]) -> None:
    driver, path = one_place

    async def main(store: Store) -> None:
        image = await store.add([], "localhost/empty:1")
        snapshots = Snapshots(store.layout, store.layers, driver)
        await snapshots.prepare("c1", image, None)
        try:
            assert os.listdir(store.layout.rootfs("c1")) == []
            (store.layout.rootfs("c1") / "file").write_text("x")
        finally:
            await snapshots.remove("c1")

    with_store(path, main)


def test_a_container_keeps_its_driver_when_the_node_changes_it(one_place: tuple[str, Path]) -> None:
    async def test(store: Store, _snapshots: Snapshots, image: Image) -> None:
        root = store.layout.rootfs("c1")
        (root / "mine").write_text("kept")
        mounts.unmount(root)
        changed = Snapshots(store.layout, store.layers, "vfs" if one_place[0] != "vfs" else "overlay")
        await changed.prepare("c1", image, None)
        assert (root / "mine").read_text() == "kept"
        await changed.prepare("c2", image, None)
        await changed.remove("c2")

    with_container(one_place, test)


def test_a_fuse_overlayfs_that_died_is_mounted_anew(disks: dict[str, Path]) -> None:
    if shutil.which("fuse-overlayfs") is None:
        pytest.skip("fuse-overlayfs is not installed")

    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        root = store.layout.rootfs("c1")
        (root / "mine").write_text("kept")
        needle = os.fsencode(root)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and needle in (entry / "cmdline").read_bytes().split(b"\0"):
                pid = os.pidfd_open(int(entry.name))
                signal.pidfd_send_signal(pid, signal.SIGKILL)
                select.select([pid], [], [], 20)
                os.close(pid)
        with pytest.raises(OSError, match="endpoint"):
            root.stat()
        await snapshots.prepare("c1", image, None)
        assert (root / "mine").read_text() == "kept"

    with fresh_directory(disks["ext4"]) as path:
        with_container(("fuse-overlayfs", path), test)


def test_the_copy_of_an_image_goes_with_the_image(on_btrfs: Path) -> None:
    async def main(store: Store) -> None:
        image = await store.add(LAYERS, "localhost/a:1")
        snapshots = Snapshots(store.layout, store.layers, "btrfs")
        for name in ("c1", "c2"):
            await snapshots.prepare(name, image, None)
        copies = list(store.layout.layers.glob("*/merged"))
        assert len(copies) == 1
        assert btrfs.is_subvolume(copies[0])
        for name in ("c1", "c2"):
            await snapshots.remove(name)
        await store.library.remove("localhost/a:1")
        assert [path.name for path in store.layout.layers.iterdir()] == [".staging"]
        assert not any((store.layout.layers / ".staging").iterdir())

    with_store(on_btrfs, main)


def test_a_verification_passes_over_the_copy_of_an_image_and_a_repair_drops_it(on_btrfs: Path) -> None:
    async def test(store: Store, _snapshots: Snapshots, image: Image) -> None:
        repairer = Repairer(store.library)
        (verdict,) = await repairer.verify([image], deep=True)
        assert not verdict.problems
        (store.layers.tree(image.layers[0].chain_id) / "etc/passwd").write_text("damaged")
        (verdict,) = await repairer.verify([image], deep=True)
        assert verdict.repaired
        assert not list(store.layout.layers.glob("*/merged"))

    with_container(("btrfs", on_btrfs), test)


def test_a_half_made_copy_of_an_image_is_made_anew(on_btrfs: Path) -> None:
    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        (copy,) = store.layout.layers.glob("*/merged")
        copy.rename(copy.with_name("merged.new"))
        await snapshots.prepare("c2", image, None)
        await snapshots.remove("c2")
        assert [path.name for path in copy.parent.glob("merged*")].count("merged.new") == 0

    with_container(("btrfs", on_btrfs), test)


def test_the_btrfs_driver_says_where_it_cannot_work(tmp_path: Path, disks: dict[str, Path]) -> None:
    async def main(store: Store) -> None:
        driver = open_driver("btrfs", store.layout, store.layers)
        with pytest.raises(FailedPrecondition, match=r"is on ext4: storage_driver = 'btrfs' needs btrfs"):
            driver.check()

    with fresh_directory(disks["ext4"]) as path:
        with_store(path, main)


@pytest.mark.parametrize("driver", ["overlay", "btrfs", "vfs"])
def test_a_container_cannot_write_more_than_its_quota(driver: str, on_btrfs: Path) -> None:
    disk = on_btrfs.parent
    subprocess.run(["btrfs", "quota", "enable", disk], check=True)

    async def test(store: Store, snapshots: Snapshots, image: Image) -> None:
        written = fill(store.layout.rootfs("c1") / "filler")
        assert 12 * MEGABYTE < written < 17 * MEGABYTE
        await snapshots.prepare("c2", image, None)  # others are not limited
        try:
            with (store.layout.rootfs("c2") / "filler").open("wb") as opened:
                opened.write(os.urandom(20 * MEGABYTE))
                os.fsync(opened.fileno())
        finally:
            await snapshots.remove("c2")

    try:
        with_container((driver, on_btrfs), test, quota_bytes=16 * MEGABYTE)
    finally:
        subprocess.run(["btrfs", "quota", "disable", disk], check=True)


def fill(path: Path) -> int:
    """Write until the file system refuses; how many bytes it took."""
    written = 0
    with path.open("wb", buffering=0) as opened:
        try:
            while True:
                written += opened.write(os.urandom(MEGABYTE))
                os.fsync(opened.fileno())
        except OSError as error:
            if error.errno not in (errno.EDQUOT, errno.ENOSPC):
                raise
    return written


@pytest.mark.parametrize(
    ("kind", "cure"), [("btrfs", "btrfs quota enable"), ("ext4", "prjquota"), ("xfs", "prjquota")]
)
def test_a_quota_that_the_file_system_cannot_give_is_refused_with_the_cure(
    kind: str, cure: str, disks: dict[str, Path]
) -> None:
    async def main(store: Store) -> None:
        image = await store.add(LAYERS, "localhost/a:1")
        try:
            with pytest.raises(FailedPrecondition, match=cure):
                await store.snapshots.prepare("c1", image, None, quota_bytes=MEGABYTE)
        finally:
            await store.snapshots.remove("c1")
        assert not store.layout.container_data("c1").exists()

    with fresh_directory(disks[kind]) as path:
        with_store(path, main)
