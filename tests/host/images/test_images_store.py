"""The local store on a real file system: published whole, freed whole, right after every interruption."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from noded.errors import DataLoss, FailedPrecondition
from tests.support.layer_cases import (
    Store,
    directory,
    file,
    make_image,
    open_store,
    scan,
    sha256,
    symlink,
    tar,
    with_store,
)

pytestmark = pytest.mark.root

BASE = tar(directory("./"), directory("etc", mode=0o750, uid=11, mtime=77), file("etc/base", b"b" * 9000))
TOP = tar(file("etc/top", b"t"), file("usr/bin/x", b"x"))


def stored_files(store: Store) -> list[str]:
    """Every path below content/ and layers/ that is not a fixed directory."""
    found = []
    for base in (store.layout.content, store.layout.layers):
        for path in base.rglob("*"):
            if path.is_file() or (path.parent == store.layout.layers and not path.name.startswith(".")):
                found.append(str(path.relative_to(store.layout.root)))
    return found


def inode_count(path: Path) -> int:
    return int(
        subprocess.run(["du", "-s", "--inodes", path], capture_output=True, check=True).stdout.split()[0]
    )


def du(path: Path) -> int:
    os.sync()
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True).stdout.split()[0])


def test_a_published_image_is_there_after_a_restart(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        assert store.library.get("localhost/a:1") == image

    async def second(store: Store) -> None:
        image = store.library.get("localhost/a:1")
        assert image is not None
        assert store.library.list() == (image,)
        assert store.library.get(image.id) == image
        assert store.library.get(image.id[7:]) == image
        assert store.library.get(image.id[7:19]) == image
        assert store.library.get(image.digests[0]) == image
        assert store.library.get("localhost/a") is None
        assert scan(store.layers.tree(image.layers[0].chain_id))[b"etc/base"]

    with_store(tmp_path, first)
    with_store(tmp_path, second)


def test_implied_directories_take_the_metadata_of_the_lower_layer(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        lower, upper = (store.layers.tree(layer.chain_id) for layer in image.layers)
        assert (upper / "etc").stat().st_uid == 11
        assert (upper / "etc").stat().st_mode == (lower / "etc").stat().st_mode
        assert (upper / "etc").stat().st_mtime == 77
        assert (upper / "usr").stat().st_mode & 0o7777 == 0o755

    with_store(tmp_path, test)


def test_implied_directories_look_through_whiteouts_and_opaque_directories(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add(
            [
                tar(
                    directory("./"),
                    directory("a", mode=0o700),
                    directory("a/b", mode=0o711),
                    directory("c", mode=0o701),
                ),
                tar(file("x")),
                tar(directory("a", mode=0o750), file("a/.wh..wh..opq"), file(".wh.c")),
                tar(file("a/b/f"), file("c/f")),
            ],
            "localhost/a:1",
        )
        top = store.layers.tree(image.layers[-1].chain_id)
        modes = {path: (top / path).stat().st_mode & 0o777 for path in ("a", "a/b", "c")}
        assert modes == {"a": 0o750, "a/b": 0o755, "c": 0o755}
        opaque = store.layers.tree(image.layers[2].chain_id) / "a"
        assert os.getxattr(opaque, "trusted.overlay.opaque") == b"y"

    with_store(tmp_path, test)


def test_removing_an_image_frees_what_only_it_needed(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        one = await store.add([BASE, TOP], "localhost/a:1", "localhost/a:2")
        two = await store.add([BASE, tar(file("other"))], "localhost/b:1")
        freed = await store.library.remove("localhost/a:2")
        assert (freed.blobs, freed.layers) == (3, 1)
        assert store.library.list() == (two,)
        assert store.library.get(one.id) is None
        assert not store.layers.has(one.layers[1].chain_id)
        assert store.layers.has(two.layers[0].chain_id)
        await store.library.remove("localhost/a:1")
        await store.library.remove(two.id)
        assert stored_files(store) == []

    with_store(tmp_path, test)


def test_layers_below_a_container_stay_until_it_is_gone(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        in_use = {layer.chain_id for layer in image.layers}
        store.library.set_in_use(lambda: in_use)
        await store.library.remove(image.id)
        assert store.layers.has(image.layers[0].chain_id)
        in_use.clear()
        assert (await store.library.sweep()).layers == 1
        assert stored_files(store) == []

    with_store(tmp_path, test)


def test_no_layer_is_deleted_before_containers_are_known(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], "localhost/a:1")
        store.library._in_use = None
        await store.library.remove(image.id)
        await store.library.collect()
        assert store.layers.has(image.layers[0].chain_id)

    with_store(tmp_path, test)


def test_a_tag_moves_to_the_image_that_was_published_last(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        one = await store.add([BASE], "localhost/a:1", "localhost/a:2")
        two = await store.add([TOP], "localhost/a:1")
        assert store.library.get("localhost/a:1") == two
        left = store.library.get(one.id)
        assert left is not None
        assert left.tags == ("localhost/a:2",)
        again = await store.library.publish(two, "localhost/c")
        assert again.tags == ("localhost/a:1", "localhost/c:latest")

    with_store(tmp_path, test)

    async def after(store: Store) -> None:
        tags = sorted(image.tags for image in store.library.list())
        assert tags == [("localhost/a:1", "localhost/c:latest"), ("localhost/a:2",)]

    with_store(tmp_path, after)


def test_an_image_with_a_missing_layer_cannot_be_published(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image, blobs = make_image([BASE], "localhost/a:1")
        await store.library.lease(list(blobs), "test")
        for data in blobs.values():
            store.content.put(data)
        with pytest.raises(FailedPrecondition, match=r"layer sha256:.* is missing"):
            await store.library.publish(image)
        with pytest.raises(FailedPrecondition, match="has not been unpacked"):
            await store.layers.publish(image.layers)

    with_store(tmp_path, test)


def test_an_interrupted_pull_leaves_no_bytes_after_the_next_start(tmp_path: Path) -> None:
    image, blobs = make_image([BASE, TOP], "localhost/a:1")

    async def interrupted(store: Store) -> None:
        await store.library.lease([*blobs, *(layer.chain_id for layer in image.layers)], "pull")
        for data in blobs.values():
            store.content.put(data)
        await store.unpack(image.layers[0])
        await store.unpack(image.layers[1])
        await store.layers.publish(image.layers[:1])
        writer = store.content.begin(sha256(b"never complete"), 14)
        writer.write(b"never")
        writer.keep()
        assert len(stored_files(store)) > 6

    async def after(store: Store) -> None:
        await store.library.collect()
        assert stored_files(store) == []
        assert list((store.layout.layers / ".staging").iterdir()) == []
        info = await store.library.fs_info()
        assert (info.image.used_bytes, info.image.inodes_used) == (0, 0)

    with_store(tmp_path, interrupted)
    with_store(tmp_path, after)


def test_a_lease_keeps_blobs_and_layers_until_it_is_released(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image, blobs = make_image([BASE], "localhost/a:1")
        await store.library.lease(list(blobs), "one")
        await store.library.lease(image.layers[0].chain_id, "two")
        for data in blobs.values():
            store.content.put(data)
        await store.unpack(image.layers[0])
        await store.library.sweep()
        await store.library.release("one")
        assert not store.content.has(image.id)
        assert store.layers.staged(image.layers[0].chain_id)
        await store.library.release("two")
        await store.library.release("two")
        assert not store.layers.staged(image.layers[0].chain_id)
        assert stored_files(store) == []

    with_store(tmp_path, test)


@pytest.mark.parametrize("stage", ["staging", "record", "tree"])
def test_a_layer_without_its_commit_record_does_not_exist(tmp_path: Path, stage: str) -> None:
    """What a power loss can leave: names without contents, and contents without names."""

    async def first(store: Store) -> None:
        await store.add([BASE], "localhost/a:1")

    with_store(tmp_path, first)
    [layer] = [path for path in (tmp_path / "root" / "layers").iterdir() if path.name != ".staging"]
    if stage == "staging":
        layer.rename(layer.parent / ".staging" / layer.name)
    elif stage == "record":
        (layer / "record.json").write_bytes(b"")
    else:
        shutil.rmtree(layer / "fs")

    async def second(store: Store) -> None:
        assert store.library.list() == ()
        await store.library.collect()
        assert not layer.exists()
        image = await store.add([BASE], "localhost/a:1")
        assert store.library.list() == (image,)
        assert (store.layers.tree(image.layers[0].chain_id) / "etc/base").stat().st_size == 9000

    with_store(tmp_path, second)


def test_an_incomplete_image_can_be_removed(tmp_path: Path) -> None:
    async def first(store: Store) -> None:
        await store.add([BASE], "localhost/a:1")

    async def second(store: Store) -> None:
        await store.library.collect()
        assert store.library.get("localhost/a:1") is None
        await store.library.remove("localhost/a:1")
        assert stored_files(store) == []

    with_store(tmp_path, first)
    for path in (tmp_path / "root" / "layers").iterdir():
        if path.name != ".staging":
            shutil.rmtree(path)
    with_store(tmp_path, second)


def test_the_accounted_bytes_are_what_du_counts(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        files = [file(f"d/{number}", os.urandom(number * 701 % 60_000)) for number in range(300)]
        await store.add([tar(directory("d"), *files), BASE], "localhost/a:1")
        await store.add([tar(directory("d"), *files), TOP], "localhost/b:1")
        info = await store.library.fs_info()
        found = du(store.layout.content) + du(store.layout.layers)
        fixed = 8 * 4096  # the directories that are always there
        assert abs(found - fixed - info.image.used_bytes) < found / 100
        assert info.image.mountpoint == info.container.mountpoint == str(store.layout.root)
        inodes = inode_count(store.layout.content) + inode_count(store.layout.layers)
        assert 0 <= inodes - info.image.inodes_used <= 8

    with_store(tmp_path, test)


def test_two_unpacks_of_one_layer_share_the_work(tmp_path: Path) -> None:
    image, blobs = make_image([BASE], "localhost/a:1")
    layer = image.layers[0]

    async def test(store: Store) -> None:
        store.content.put(blobs[layer.blob_digest])
        unread = os.open(store.content.path(layer.blob_digest), os.O_RDONLY)
        read_end, write_end = os.pipe()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.layers.unpack, layer, read_end)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(store.layers.unpack, layer, unread)
            await trio.to_thread.run_sync(os.write, write_end, blobs[layer.blob_digest])
            os.close(write_end)
        assert store.layers.staged(layer.chain_id)
        assert os.lseek(unread, 0, os.SEEK_CUR) == 0
        os.close(unread)
        os.close(read_end)
        assert store.layers._locks == {}

    with_store(tmp_path, test)


def test_a_failed_unpack_leaves_nothing_and_the_next_one_tries_again(tmp_path: Path) -> None:
    image, blobs = make_image([BASE], "localhost/a:1")
    layer = image.layers[0]

    async def test(store: Store) -> None:
        store.content.put(blobs[layer.blob_digest])
        damaged = tmp_path / "damaged"
        damaged.write_bytes(blobs[layer.blob_digest][:100])
        with damaged.open("rb") as source, pytest.raises(DataLoss, match=layer.diff_id):
            await store.layers.unpack(layer, source.fileno())
        assert list((store.layout.layers / ".staging").iterdir()) == []
        await store.unpack(layer)

    with_store(tmp_path, test)


def test_a_cancelled_unpack_leaves_nothing(tmp_path: Path) -> None:
    image, _ = make_image([BASE], "localhost/a:1")
    read_end, write_end = os.pipe()

    async def test(store: Store) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.layers.unpack, image.layers[0], read_end)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert list((store.layout.layers / ".staging").iterdir()) == []

    try:
        with_store(tmp_path, test)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_pinned_images_are_marked(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        pinned = await store.add([BASE], "registry.k8s.io/pause:3.9")
        other = await store.add([TOP], "localhost/a:1")
        assert (pinned.pinned, other.pinned) == (True, False)

    with_store(tmp_path, test, pinned=("registry.k8s.io/*",))

    async def unpinned(store: Store) -> None:
        assert not any(image.pinned for image in store.library.list())

    with_store(tmp_path, unpinned)


def test_without_keep_blobs_only_manifest_and_configuration_stay(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE, TOP], "localhost/a:1")
        assert {digest for digest, _ in store.content.blobs()} == {image.id, image.manifest_digest}

    with_store(tmp_path, test, keep_blobs=False)


def test_no_user_of_the_node_can_reach_the_files_of_images(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add(
            [tar(directory("./"), file("su", b"", mode=0o4755), symlink("l", "su"))], "localhost/a:1"
        )
        tree = store.layers.tree(image.layers[0].chain_id)
        assert tree.parent.stat().st_mode & 0o077 == 0
        await store.snapshots.prepare("c", image, None)
        try:
            assert store.layout.container_data("c").stat().st_mode & 0o077 == 0
        finally:
            await store.snapshots.remove("c")

    with_store(tmp_path, test)


def test_names_that_are_not_layers_are_left_alone(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        (store.layout.layers / "lost+found").mkdir()
        await store.library.collect()
        assert (store.layout.layers / "lost+found").is_dir()

    with_store(tmp_path, test)


def test_the_store_opens_while_another_one_is_closed(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_store(tmp_path) as store:
            assert store.library.list() == ()

    trio.run(main)
    trio.run(main)
