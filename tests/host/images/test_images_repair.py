"""Damage of every kind is found, and made good from what is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from noded.images import crash_mark
from noded.images.compare import first_difference
from noded.images.repair import Repairer, Verdict
from noded.model.image import Image
from tests.support.disks import mounted_disk
from tests.support.layer_cases import Store, directory, file, hardlink, symlink, tar, with_store

pytestmark = pytest.mark.root

BASE = tar(
    directory("./"),
    directory("etc", mode=0o750, uid=11),
    file("etc/base", b"b" * 9000),
    file("etc/second", b"s"),
    hardlink("etc/hard", "etc/second"),
    symlink("link", "etc"),
    directory("gone"),
)
TOP = tar(file("etc/top", b"t"), file("usr/bin/x", b"x"), file("gone/.wh..wh..opq"), file(".wh.link"))


async def verify(store: Store, *, deep: bool = False) -> list[Verdict]:
    return await Repairer(store.library).verify([*store.library.list(), *store.library.damaged()], deep=deep)


def tree(store: Store, image: Image, layer: int = 0) -> Path:
    return store.layers.tree(image.layers[layer].chain_id)


@pytest.mark.parametrize("deep", [False, True])
def test_a_good_image_has_no_problems(tmp_path: Path, deep: bool) -> None:
    async def test(store: Store) -> None:
        await store.add([BASE, TOP], "localhost/a:1")
        await store.add([BASE], "localhost/b:1")
        verdicts = await verify(store, deep=deep)
        assert [(verdict.problems, verdict.usable, verdict.repaired) for verdict in verdicts] == [
            ([], True, False)
        ] * 2
        assert list((store.layout.layers / ".staging").iterdir()) == []

    with_store(tmp_path, test)


def remove_file(path: Path) -> None:
    (path / "etc/base").unlink()


def change_content(path: Path) -> None:
    found = (path / "etc/base").stat()
    (path / "etc/base").write_bytes(b"c" * 9000)
    os.utime(path / "etc/base", ns=(found.st_atime_ns, found.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path / "etc/base", 0)


def change_mode(path: Path) -> None:
    (path / "etc/base").chmod(0o666)


def change_owner(path: Path) -> None:
    os.chown(path / "etc", 12, 0)


def add_file(path: Path) -> None:
    (path / "etc/new").write_text("x")


def change_link(path: Path) -> None:
    (path / "link").unlink()
    (path / "link").symlink_to("/")


def add_xattr(path: Path) -> None:
    os.setxattr(path / "etc/base", "user.x", b"y")


def dig_holes(path: Path) -> None:
    found = path.stat()
    subprocess.run(["fallocate", "--dig-holes", path], check=True)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert path.stat().st_blocks < found.st_blocks // 10


@pytest.mark.parametrize(
    ("damage", "deep", "words"),
    [
        (remove_file, False, "files and directories instead of"),
        (add_file, False, "files and directories instead of"),
        (shutil.rmtree, False, "files and directories instead of"),
        (change_content, True, "etc/base: content"),
        (truncate, False, "bytes instead of"),
        (change_mode, True, "etc/base: mode"),
        (change_owner, True, "etc: owner 12:0 instead of 11:0"),
        (change_link, True, "link: "),
        (add_xattr, True, "etc/base: extended attributes"),
    ],
)
def test_a_damaged_tree_is_found_and_extracted_again(
    tmp_path: Path, damage: Callable[[Path], None], deep: bool, words: str
) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        other = await store.add([BASE], "localhost/b:1")
        damage(tree(store, image))
        first, second = await verify(store, deep=deep)
        assert words in first.problems[0]
        assert (first.usable, first.repaired) == (True, True)
        assert (second.usable, second.repaired) == (True, True) or not second.problems
        assert {one.id for one in store.library.list()} == {image.id, other.id}
        assert store.library.damaged() == ()
        assert (tree(store, image) / "etc/base").read_bytes() == b"b" * 9000
        assert not any(verdict.problems for verdict in await verify(store, deep=True))

    with_store(tmp_path, test)


def test_blocks_that_a_compressing_file_system_saves_are_not_missed(tmp_path: Path) -> None:
    """Holes stand for what zfs makes of such files; btrfs counts what they would take."""
    zeros = tar(file("zeros", bytes(8 << 20)), file("text", b"compressible " * (1 << 19)))

    async def test(store: Store) -> None:
        image = await store.add([BASE, zeros], "localhost/a:1")
        dig_holes(tree(store, image, 1) / "zeros")
        for deep in (False, True):
            assert [one.problems for one in await verify(store, deep=deep)] == [[]]

    with mounted_disk("btrfs", tmp_path) as disk:
        subprocess.run(["mount", "-o", "remount,compress-force=zstd", disk], check=True)
        with_store(disk / "store", test)


def test_a_damaged_tree_of_a_layer_that_is_not_compressed_is_found(tmp_path: Path) -> None:
    """Its chain ID is the digest of its blob: that the one is good says nothing about the other."""

    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1", compressed=False)
        assert image.layers[0].chain_id == image.layers[0].blob_digest
        remove_file(tree(store, image))
        (verdict,) = await verify(store)
        assert "files and directories instead of" in verdict.problems[0]
        assert verdict.repaired
        assert (tree(store, image) / "etc/base").exists()

    with_store(tmp_path, test)


def test_a_damaged_tree_without_its_blob_waits_for_a_pull(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        store.content.delete(image.layers[0].blob_digest)
        remove_file(tree(store, image))
        (verdict,) = await verify(store)
        assert not verdict.usable
        assert "pull it again" in verdict.problems[-1]
        assert store.library.list() == ()
        assert store.library.get("localhost/a:1") is None
        again = await store.add([BASE, TOP], "localhost/a:1")
        assert store.library.list() == (again,)

    with_store(tmp_path, test)


def test_a_tree_below_a_container_is_left_alone(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        store.library.set_in_use(lambda: image.chain_ids)
        remove_file(tree(store, image))
        (verdict,) = await verify(store)
        assert "a container uses it" in verdict.problems[-1]
        assert (tree(store, image) / "etc/second").exists()
        store.library.set_in_use(frozenset)
        (verdict,) = await verify(store)
        assert verdict.repaired

    with_store(tmp_path, test)


@pytest.mark.parametrize("deep", [False, True])
def test_a_damaged_blob_is_removed_and_the_image_stays(tmp_path: Path, deep: bool) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        blob = store.content.path(image.layers[0].blob_digest)
        data = blob.read_bytes()
        blob.write_bytes(bytes(len(data)) if deep else data[:-1])
        (verdict,) = await verify(store, deep=deep)
        assert image.layers[0].blob_digest in verdict.problems[0]
        assert (verdict.usable, verdict.repaired) == (True, False)
        assert not blob.exists()
        assert store.library.list() == (image,)

    with_store(tmp_path, test)


@pytest.mark.parametrize("which", ["manifest", "configuration"])
def test_a_damaged_document_sets_its_image_aside(tmp_path: Path, which: str) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        digest = image.manifest_digest if which == "manifest" else image.id
        store.content.path(digest).write_bytes(b"{}")
        (verdict,) = await verify(store)
        assert not verdict.usable
        assert digest in verdict.problems[0]
        assert store.library.list() == ()
        again = await store.add([BASE], "localhost/a:1")
        assert store.library.list() == (again,)

    with_store(tmp_path, test)


def test_a_layer_that_a_start_misses_is_extracted_from_its_blob(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        await store.add([BASE, TOP], "localhost/a:1")

    async def second(store: Store) -> None:
        await store.library.collect()
        assert store.library.list() == ()
        await Repairer(store.library).repair_all()
        (image,) = store.library.list()
        assert (tree(store, image) / "etc/base").stat().st_size == 9000
        assert (tree(store, image, 1) / "etc").stat().st_uid == 11
        assert not any(verdict.problems for verdict in await verify(store, deep=True))

    with_store(tmp_path, first)
    for path in (tmp_path / "root" / "layers").iterdir():
        if path.name != ".staging":
            shutil.rmtree(path)
    with_store(tmp_path, second)


def test_after_a_crash_damage_is_repaired(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        remove_file(tree(store, image))
        await Repairer(store.library).after_crash()
        assert (tree(store, image) / "etc/base").stat().st_size == 9000
        assert store.library.list() == (image,)

    with_store(tmp_path, test)


def test_what_cannot_be_repaired_leaves_nothing_behind(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        store.content.path(image.layers[1].blob_digest).write_bytes(b"broken")

    async def second(store: Store) -> None:
        await store.library.collect()
        await Repairer(store.library).repair_all()
        assert store.library.list() == ()
        assert store.library._leases == {}
        assert len(store.library.damaged()) == 1

    with_store(tmp_path, first)
    for path in (tmp_path / "root" / "layers").iterdir():
        if path.name != ".staging":
            shutil.rmtree(path)
    with_store(tmp_path, second)


def test_trees_are_compared_by_everything_that_a_container_sees(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        (path / "a").mkdir(parents=True)
        (path / "a/f").write_text("x")
        os.utime(path / "a/f", ns=(5, 5))
    assert first_difference(one, two) == ""
    os.utime(two / "a/f", ns=(5, 6))
    assert first_difference(one, two) == "a/f: modification time"
    os.utime(two / "a/f", ns=(5, 5))
    os.link(two / "a/f", two / "a/g")
    assert first_difference(one, two) == "a/f: 1 hard links instead of 2"
    (two / "a/f").unlink()
    assert first_difference(one, two) == "a/f: should not be there"


def test_a_crash_of_the_node_is_told_from_a_restart(tmp_path: Path) -> None:
    mark = tmp_path / "running"
    assert not crash_mark.begin(mark, "boot-1")
    assert not crash_mark.begin(mark, "boot-1")  # the daemon was killed, the node was not
    assert crash_mark.begin(mark, "boot-2")
    crash_mark.end(mark)
    assert not crash_mark.begin(mark, "boot-3")
