"""Images as volumes on the real overlayfs: read-only, whole or in part, and gone without a trace."""

# ruff: noqa: ASYNC221, ASYNC240 - nothing else runs on the event loops of these tests

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from noded.errors import ImageVolumeMountFailed
from noded.host import mounts
from noded.host.userns import open_mapped_userns
from noded.images.volumes import ImageVolumes
from noded.model.image import Image
from noded.model.pod import IDMapping, UserNamespace
from tests.support.layer_cases import Store, directory, file, symlink, tar, with_store

pytestmark = pytest.mark.root

BASE = tar(
    directory("./", mode=0o755),
    directory("etc", mode=0o750, uid=1000),
    file("etc/passwd", b"root:x:0:0", mode=0o640, uid=1000),
    file("gone", b"g"),
    symlink("link", "/etc"),
    symlink("escape", "../../../../etc"),
    symlink("loop", "loop"),
)
TOP = tar(file(".wh.gone"), file("etc/new", b"new"))
USERNS = UserNamespace(uids=(IDMapping(400_000, 0, 65536),), gids=(IDMapping(500_000, 0, 65536),))


def with_volume(tmp_path: Path, tars: list[bytes], test: Any, userns: UserNamespace | None = None) -> None:
    async def main(store: Store) -> None:
        volumes = ImageVolumes(store.layout, store.layers)
        image = await store.add(tars, "localhost/a:1")
        store.layout.bundle("c1").mkdir(parents=True)
        try:
            await volumes.mount("c1", 2, image, userns)
            await test(store, volumes, image, Path(await volumes.source("c1", 2, "")))
        finally:
            await volumes.unmount_all("c1")
            await volumes.unmount_all("c1")
        assert not mounts.mounts_below(tmp_path)
        assert list(store.layout.bundle("c1").iterdir()) == []

    with_store(tmp_path, main)


@pytest.mark.parametrize("count", [1, 2], ids=["one layer", "two layers"])
def test_a_volume_shows_the_image_and_cannot_be_written(tmp_path: Path, count: int) -> None:
    async def test(_store: Store, _volumes: ImageVolumes, _image: Image, root: Path) -> None:
        assert (root / "etc/passwd").read_text() == "root:x:0:0"
        assert (root / "gone").exists() == (count == 1)
        assert (root / "etc/new").exists() == (count == 2)
        assert (root / "etc").stat().st_uid == 1000
        for change in (lambda: (root / "x").write_text(""), lambda: (root / "etc/passwd").unlink()):
            with pytest.raises(OSError, match="Read-only"):
                change()

    with_volume(tmp_path, [BASE, TOP][:count], test)


def test_a_single_layer_hides_what_it_removes(tmp_path: Path) -> None:
    """Its whiteouts are device nodes in the tree, which a plain bind mount would show."""

    async def test(_store: Store, _volumes: ImageVolumes, _image: Image, root: Path) -> None:
        assert sorted(os.listdir(root)) == ["a"]

    with_volume(tmp_path, [tar(file("a"), file(".wh.b"))], test)


@pytest.mark.parametrize("userns", [None, USERNS], ids=["plain", "userns"])
def test_an_image_without_layers_is_an_empty_volume(tmp_path: Path, userns: UserNamespace | None) -> None:
    async def test(_store: Store, _volumes: ImageVolumes, _image: Image, root: Path) -> None:
        assert os.listdir(root) == []
        assert stat.S_IMODE(root.stat().st_mode) == 0o755
        with pytest.raises(OSError, match="Read-only"):
            (root / "x").write_text("")

    with_volume(tmp_path, [], test, userns)


@pytest.mark.parametrize("count", [60, 250])
def test_images_of_many_layers_are_mounted(tmp_path: Path, count: int) -> None:
    async def test(_store: Store, _volumes: ImageVolumes, _image: Image, root: Path) -> None:
        assert len(os.listdir(root)) == count
        with pytest.raises(OSError, match="Read-only"):
            (root / "x").write_text("")

    with_volume(tmp_path, [tar(file(f"f{n}")) for n in range(count)], test)


def test_a_pod_with_a_user_namespace_reads_it_with_its_own_ids(tmp_path: Path) -> None:
    async def test(store: Store, volumes: ImageVolumes, _image: Image, root: Path) -> None:
        found = (root / "etc").stat()
        assert (found.st_uid, found.st_gid) == (401_000, 500_000)
        with open_mapped_userns(USERNS.uids, USERNS.gids) as fd:
            answer = subprocess.run(
                ["nsenter", f"--user=/proc/self/fd/{fd}", "-S", "0", "-G", "0", "cat", "etc/passwd"],
                cwd=root, capture_output=True, check=True, timeout=20, pass_fds=[fd],
            )  # fmt: skip
        assert answer.stdout == b"root:x:0:0"
        assert mounts.mounts_below(tmp_path) == [root]

    with_volume(tmp_path, [BASE, TOP], test, USERNS)


@pytest.mark.parametrize(
    ("sub_path", "expected"),
    [("etc", "etc"), ("link", "etc"), ("escape", "etc"), ("etc/passwd", "etc/passwd")],
)
def test_a_sub_path_is_resolved_inside_the_image(tmp_path: Path, sub_path: str, expected: str) -> None:
    async def test(_store: Store, volumes: ImageVolumes, _image: Image, root: Path) -> None:
        assert await volumes.source("c1", 2, sub_path) == str(root / expected)

    with_volume(tmp_path, [BASE], test)


@pytest.mark.parametrize("sub_path", ["nothing", "etc/passwd/x", "loop", "gone/x"])
def test_a_missing_sub_path_is_named_in_the_error(tmp_path: Path, sub_path: str) -> None:
    async def test(_store: Store, volumes: ImageVolumes, _image: Image, _root: Path) -> None:
        with pytest.raises(
            ImageVolumeMountFailed, match=rf"^ImageVolumeMountFailed: mounts\[2\].*{sub_path}"
        ):
            await volumes.source("c1", 2, sub_path)

    with_volume(tmp_path, [BASE], test)


def test_mounting_twice_keeps_the_mount(tmp_path: Path) -> None:
    async def test(_store: Store, volumes: ImageVolumes, image: Image, root: Path) -> None:
        await volumes.mount("c1", 2, image, None)
        assert mounts.mounts_below(tmp_path) == [root]

    with_volume(tmp_path, [BASE, TOP], test)


@pytest.mark.parametrize("left", ["nothing", "directories", "mapped layers", "links"])
def test_it_goes_up_and_down_from_every_half_made_state(tmp_path: Path, left: str) -> None:
    async def main(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        volumes = ImageVolumes(store.layout, store.layers)
        place = store.layout.bundle("c1") / "images" / "0"

        def half() -> None:
            if left != "nothing":
                place.mkdir(parents=True)
            if left == "mapped layers":
                (place / "mapped").mkdir()
                mounts.bind(store.layout.layers, place / "mapped", readonly=True)
            elif left == "links":
                (place / "lower").mkdir()
                (place / "lower" / "0").symlink_to("/nowhere")

        for userns in (None, USERNS):
            half()
            await volumes.unmount_all("c1")
            assert not place.exists()
            half()
            await volumes.mount("c1", 0, image, userns)
            assert (place / "tree/etc/passwd").exists()
            await volumes.unmount_all("c1")
            assert not mounts.mounts_below(tmp_path)
            assert store.layers.tree(image.layers[0].chain_id).is_dir()

    with_store(tmp_path, main)


def test_a_missing_layer_is_an_error_with_the_prefix_that_kubelet_counts(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        await store.library.remove(image.id)
        with pytest.raises(ImageVolumeMountFailed, match=image.layers[0].diff_id):
            await ImageVolumes(store.layout, store.layers).mount("c1", 0, image, None)

    with_store(tmp_path, main)
