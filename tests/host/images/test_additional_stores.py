"""Image stores that are shared between nodes and only read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import trio

from noded.errors import FailedPrecondition, Unavailable
from noded.images.export import export_store
from noded.images.snapshots import Snapshots
from noded.images.stores import MARK, AdditionalStores, AllLayers
from noded.model.image import Image
from tests.crash.hung_fs import HungFilesystem
from tests.support.layer_cases import Store, directory, file, open_store, scan, tar, with_store

pytestmark = pytest.mark.root

LAYERS = [
    tar(directory("etc", uid=11), file("etc/a", b"a"), file("gone")),
    tar(file(".wh.gone"), directory("etc"), file("etc/.wh..wh..opq"), file("etc/b", b"b", mode=0o4755)),
]


async def export(tmp_path: Path) -> Image:
    """Write an additional store in tmp_path/shared, by another node."""
    async with open_store(tmp_path / "other-node") as other:
        image = await other.add(LAYERS, "localhost/a:1")
        await export_store([image], tmp_path / "shared", other.library)
    shutil.rmtree(tmp_path / "other-node")
    return image


async def use(store: Store, *paths: Path, seconds: float = 10.0) -> tuple[AdditionalStores, Snapshots]:
    stores = AdditionalStores(paths, answer_seconds=seconds)
    store.library.set_stores(stores)
    await stores.refresh()
    layers = AllLayers(store.layers, stores)
    return stores, Snapshots(store.layout, layers, "overlay", layers.reach)


def test_an_image_of_a_store_is_listed_and_run_where_it_is(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        exported = await export(tmp_path)
        before = scan(tmp_path / "shared")
        _, snapshots = await use(store, tmp_path / "shared")
        (image,) = store.library.list()
        assert (image.id, image.tags, image.pinned) == (exported.id, exported.tags, True)
        assert store.library.get("localhost/a:1") == image
        await snapshots.prepare("c1", image, None)
        try:
            root = store.layout.rootfs("c1")
            assert sorted(os.listdir(root)) == ["etc"]
            assert os.listdir(root / "etc") == ["b"]
            assert (root / "etc/b").stat().st_mode & 0o7777 == 0o4755
            (root / "etc/b").write_text("changed")
            await store.library.sweep()
        finally:
            await snapshots.remove("c1")
        with pytest.raises(FailedPrecondition, match=f"additional image store {tmp_path}/shared"):
            await store.library.remove("localhost/a:1")
        assert (await store.library.collect()).layers == 0
        assert not store.layers.records(), "nothing was copied"
        assert scan(tmp_path / "shared") == before, "nothing was written"

    with_store(tmp_path / "node", main)


def test_an_image_that_is_here_too_counts_before_the_store(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        await export(tmp_path)
        own = await store.add(LAYERS, "localhost/a:1")
        await use(store, tmp_path / "shared")
        assert [image.pinned for image in store.library.list()] == [False]
        await store.library.remove("localhost/a:1")
        assert [image.pinned for image in store.library.list()] == [True]
        assert store.library.get(own.id) is not None

    with_store(tmp_path / "node", main)


def test_what_another_node_adds_is_seen_with_the_next_refresh(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        (tmp_path / "shared").mkdir()
        stores, _ = await use(store, tmp_path / "shared")
        assert "write one with `noded images export-store`" in stores.problems()[tmp_path / "shared"]
        image = await export(tmp_path)
        await stores.refresh()
        assert store.library.get(image.id) is not None
        assert not stores.problems()
        shutil.rmtree(tmp_path / "shared")
        await stores.refresh()
        assert not store.library.list()

    with_store(tmp_path / "node", main)


@pytest.mark.parametrize(
    ("content", "message"), [('{"layout": 2}', "update noded"), ("{", "is damaged"), ("[]", "is damaged")]
)
def test_a_store_that_cannot_be_read_is_named_and_the_rest_works(
    content: str, message: str, tmp_path: Path
) -> None:
    async def main(store: Store) -> None:
        own = await store.add(LAYERS[:1], "localhost/own:1")
        await export(tmp_path)
        (tmp_path / "shared" / MARK).write_text(content)
        stores, _ = await use(store, tmp_path / "shared")
        assert message in stores.problems()[tmp_path / "shared"]
        assert [image.id for image in store.library.list()] == [own.id]

    with_store(tmp_path / "node", main)


def test_a_damaged_image_of_a_store_hides_no_other(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await export(tmp_path)
        record = tmp_path / f"shared/images/{image.id[7:]}.json"
        broken = json.loads(record.read_text())
        broken["layers"][0]["chain_id"] = "sha256:" + "0" * 64
        (record.parent / "incomplete.json").write_text(json.dumps(broken))
        (record.parent / "torn.json").write_text("{")
        await use(store, tmp_path / "shared")
        assert [one.id for one in store.library.list()] == [image.id]

    with_store(tmp_path / "node", main)


def test_a_store_that_vanished_fails_the_container_by_its_name(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await export(tmp_path)
        _, snapshots = await use(store, tmp_path / "shared")
        shutil.rmtree(tmp_path / "shared/layers" / image.chain_ids[0][7:])
        with pytest.raises(FailedPrecondition, match=f"{tmp_path}/shared has lost layer"):
            await snapshots.prepare("c1", image, None)
        await snapshots.remove("c1")

    with_store(tmp_path / "node", main)


def test_a_store_that_does_not_answer_holds_nobody_up(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await export(tmp_path)
        with HungFilesystem(tmp_path / "hung") as hung:
            hung.hold()
            stores, snapshots = await use(store, tmp_path / "hung", tmp_path / "shared", seconds=0.5)
            assert "does not answer" in stores.problems()[tmp_path / "hung"]
            assert [one.id for one in store.library.list()] == [image.id]
            await snapshots.prepare("c1", image, None)
            await snapshots.remove("c1")
            with trio.fail_after(0.4):  # the one thread still waits: nobody asks again
                await stores.refresh()
            hung.release()

    with_store(tmp_path / "node", main)


def test_a_container_of_a_store_that_stopped_answering_fails_in_time(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await export(tmp_path)
        (tmp_path / "mount").mkdir()
        os.rename(tmp_path / "shared", tmp_path / "mount/shared")
        _, snapshots = await use(store, tmp_path / "mount/shared", seconds=0.5)
        # Now the mount that the store was on is one whose server is gone.
        with HungFilesystem(tmp_path / "mount") as hung:
            hung.hold()
            with pytest.raises(Unavailable, match=f"{tmp_path}/mount/shared does not answer"):
                await snapshots.prepare("c1", image, None)
            assert store.library.get(image.id) is not None
            await snapshots.remove("c1")
            hung.release()

    with_store(tmp_path / "node", main)
