"""Root file systems of containers on the real overlayfs."""

# ruff: noqa: ASYNC221, ASYNC240 - nothing else runs on the event loops of these tests

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from noded.errors import FailedPrecondition
from noded.host import mounts
from noded.host.userns import open_mapped_userns
from noded.model.image import Image
from noded.model.pod import IDMapping, UserNamespace
from tests.support.layer_cases import Store, directory, file, symlink, tar, with_store

pytestmark = pytest.mark.root

BASE = tar(
    directory("./", mode=0o755, mtime=4),
    directory("etc", mode=0o750, uid=11),
    file("etc/passwd", b"root:x:0:0", uid=0),
    file("etc/other", b"o", uid=1000, gid=1001, mode=0o4755),
    directory("tmp", mode=0o1777),
)
USERNS = UserNamespace(uids=(IDMapping(400_000, 0, 65536),), gids=(IDMapping(500_000, 0, 65536),))


def with_container(tmp_path: Path, tars: list[bytes], test: Any, userns: UserNamespace | None = None) -> None:
    async def main(store: Store) -> None:
        image = await store.add(tars, "localhost/a:1")
        try:
            await store.snapshots.prepare("c1", image, userns)
            await test(store, image, store.layout.rootfs("c1"))
        finally:
            await store.snapshots.remove("c1")
        assert not store.snapshots.mounted("c1")
        assert not store.layout.container_data("c1").exists()
        assert not store.layout.rootfs("c1").exists()
        assert not mounts.mounts_below(tmp_path)

    with_store(tmp_path, main)


def test_a_container_sees_its_image_and_keeps_its_changes_apart(tmp_path: Path) -> None:
    async def test(store: Store, image: Image, root: Path) -> None:
        assert store.snapshots.mounted("c1")
        assert (root / "etc/passwd").read_text() == "root:x:0:0"
        assert root.stat().st_mode & 0o7777 == 0o755
        assert root.stat().st_mtime == 4
        (root / "etc/passwd").write_text("changed")
        (root / "etc/other").unlink()
        (root / "new").write_bytes(b"n" * 100_000)
        tree = store.layers.tree(image.layers[0].chain_id)
        assert (tree / "etc/passwd").read_text() == "root:x:0:0"
        assert (tree / "etc/other").exists()
        used_bytes, inodes = await store.snapshots.usage("c1")
        assert used_bytes > 100_000
        assert inodes == 5  # upper, etc, passwd, the whiteout, new

    with_container(tmp_path, [BASE], test)


def test_upper_layers_hide_and_replace(tmp_path: Path) -> None:
    async def test(_store: Store, _image: Image, root: Path) -> None:
        assert sorted(os.listdir(root)) == ["etc", "new", "tmp"]
        assert sorted(os.listdir(root / "etc")) == ["fresh"]
        assert (root / "etc").stat().st_uid == 12
        assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777

    top = tar(
        directory("etc", uid=12), file("etc/.wh..wh..opq"), file("etc/fresh"), file("new"), file("tmp/.wh.x")
    )
    with_container(tmp_path, [BASE, top], test)


def test_a_layer_that_hides_the_root_hides_everything_below(tmp_path: Path) -> None:
    async def test(_store: Store, _image: Image, root: Path) -> None:
        assert os.listdir(root) == ["only"]

    with_container(tmp_path, [BASE, tar(directory("./"), file(".wh..wh..opq"), file("only"))], test)


@pytest.mark.parametrize("userns", [None, USERNS], ids=["plain", "userns"])
def test_an_image_without_layers_has_an_empty_writable_root(
    tmp_path: Path, userns: UserNamespace | None
) -> None:
    async def test(_store: Store, _image: Image, root: Path) -> None:
        assert os.listdir(root) == []
        (root / "f").write_text("x")
        assert root.stat().st_uid == (400_000 if userns else 0)

    with_container(tmp_path, [], test, userns)


@pytest.mark.parametrize("count", [45, 127, 250])
def test_images_of_many_layers_are_mounted(tmp_path: Path, count: int) -> None:
    """Around 45 layers the paths fill the page that mount(2) reads, around 190 the short links do."""

    async def test(_store: Store, image: Image, root: Path) -> None:
        assert len(image.layers) == count
        assert len(os.listdir(root)) == count + 1
        assert (root / "same").read_text() == str(count - 1)
        (root / "same").write_text("changed")

    tars = [tar(file(f"f{n}"), file("same", str(n).encode())) for n in range(count)]
    with_container(tmp_path, tars, test)


def test_paths_with_special_characters_are_mounted(tmp_path: Path) -> None:
    odd = tmp_path / "a:b,c\\d 'e\""
    odd.mkdir()

    async def test(_store: Store, _image: Image, root: Path) -> None:
        assert (root / "etc/passwd").exists()

    with_container(odd, [BASE, tar(file("x"))], test)


def test_a_user_namespace_sees_the_image_with_its_own_ids(tmp_path: Path) -> None:
    async def test(store: Store, image: Image, root: Path) -> None:
        assert ((root / "etc/passwd").stat().st_uid, (root / "etc/passwd").stat().st_gid) == (
            400_000,
            500_000,
        )
        assert ((root / "etc/other").stat().st_uid, (root / "etc/other").stat().st_gid) == (401_000, 501_001)
        assert (root.stat().st_uid, root.stat().st_gid) == (400_000, 500_000)
        # A process with that user namespace's root, and no more, can change the image's files.
        script = "echo mine > etc/passwd && rm etc/other && touch new && chown 5:5 new"
        with open_mapped_userns(USERNS.uids, USERNS.gids) as fd:
            subprocess.run(
                ["nsenter", f"--user=/proc/self/fd/{fd}", "-S", "0", "-G", "0", "sh", "-c", script],
                cwd=root, check=True, timeout=20, pass_fds=[fd],
            )  # fmt: skip
        assert (root / "etc/passwd").read_text() == "mine\n"
        assert (root / "new").stat().st_uid == 400_005
        assert not (root / "etc/other").exists()
        tree = store.layers.tree(image.layers[0].chain_id)
        assert (tree / "etc/passwd").stat().st_uid == 0
        assert mounts.mounts_below(tmp_path) == [root]

    with_container(tmp_path, [BASE, tar(file("x"))], test, USERNS)


def test_preparing_twice_keeps_the_mount_and_the_files(tmp_path: Path) -> None:
    async def test(store: Store, image: Image, root: Path) -> None:
        (root / "mine").write_text("kept")
        await store.snapshots.prepare("c1", image, None)
        assert mounts.mounts_below(tmp_path) == [root]
        mounts.unmount(root)  # as after a reboot
        await store.snapshots.prepare("c1", image, None)
        assert (root / "mine").read_text() == "kept"

    with_container(tmp_path, [BASE], test)


@pytest.mark.parametrize(
    "left", ["nothing", "data", "half upper", "link directory", "mapped lowers", "rootfs"]
)
def test_remove_and_prepare_are_right_from_every_half_made_state(tmp_path: Path, left: str) -> None:
    async def main(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        data, bundle = store.layout.container_data("c1"), store.layout.bundle("c1")

        def half() -> None:
            if left == "data":
                data.mkdir(parents=True)
            elif left == "half upper":
                (data / "upper.new" / "x").mkdir(parents=True)
                (data / "work").mkdir()
            elif left == "link directory":
                (data / "lower").mkdir(parents=True)
                (data / "lower" / "0").symlink_to("/nowhere")
            elif left == "mapped lowers":
                (bundle / "lowers").mkdir(parents=True)
                mounts.bind(store.layout.layers, bundle / "lowers", readonly=True)
            elif left == "rootfs":
                store.layout.rootfs("c1").mkdir(parents=True)

        for userns in (None, USERNS):
            half()
            await store.snapshots.remove("c1")
            assert not data.exists()
            assert not mounts.mounts_below(tmp_path)
            half()
            await store.snapshots.prepare("c1", image, userns)
            assert (store.layout.rootfs("c1") / "etc/passwd").exists()
            await store.snapshots.remove("c1")
            await store.snapshots.remove("c1")
            assert not data.exists()
            assert not mounts.mounts_below(tmp_path)
            assert store.layers.tree(image.layers[0].chain_id).is_dir()

    with_store(tmp_path, main)


def test_a_missing_layer_is_named_in_the_error(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        await store.library.remove(image.id)
        with pytest.raises(FailedPrecondition, match=image.layers[0].diff_id):
            await store.snapshots.prepare("c1", image, None)

    with_store(tmp_path, main)


def test_a_root_file_system_in_use_does_not_keep_its_container(tmp_path: Path) -> None:
    async def test(store: Store, _image: Image, root: Path) -> None:
        held = os.open(root / "etc/passwd", os.O_RDONLY)
        try:
            await store.snapshots.remove("c1")
            assert not store.snapshots.mounted("c1")
            assert os.read(held, 4) == b"root"
        finally:
            os.close(held)

    with_container(tmp_path, [BASE], test)


def test_directories_nested_deeper_than_a_path_are_removed(tmp_path: Path) -> None:
    async def test(store: Store, _image: Image, root: Path) -> None:
        fd = os.open(root, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("deep", dir_fd=fd)
            deeper = os.open("deep", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = deeper
        os.close(fd)
        await store.snapshots.usage("c1")

    with_container(tmp_path, [BASE, tar(symlink("s", "/"))], test)
