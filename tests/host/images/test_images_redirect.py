"""Entries below a link of a lower layer land where the link leads, as umoci and containerd put them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from noded.images.archive import save_archive
from noded.images.repair import Repairer
from noded.model.image import Image
from tests.support.layer_cases import Store, directory, file, scan, symlink, tar, with_store

pytestmark = pytest.mark.root

BASE = tar(
    directory("./"),
    directory("usr", mode=0o751),
    directory("usr/lib", mode=0o711, uid=7),
    file("usr/lib/old", b"o"),
    file("usr/lib/gone", b"g"),
    directory("usr/lib/deep", mode=0o700),
    symlink("lib", "usr/lib"),
    symlink("abs", "/usr/lib"),
    symlink("chain", "abs"),
    symlink("up", "usr/../lib"),
    symlink("dangling", "not/there"),
    symlink("loop", "loop"),
    symlink("out", "../../../usr"),
    symlink("tofile", "usr/lib/old"),
)


def mounted(tmp_path: Path, tars: list[bytes], check: Any, *, exact: bool = True) -> None:
    """Run `check(root)` on the image's merged tree, and compare that tree with umoci's."""

    async def main(store: Store) -> None:
        image = await store.add(tars, "localhost/a:1")
        await store.snapshots.prepare("c1", image, None)
        root = store.layout.rootfs("c1")
        try:
            check(root)
            ours = listing(root)
            (verdict,) = await Repairer(store.library).verify([image], deep=True)
            assert verdict.problems == []
            if exact and shutil.which("umoci"):
                assert ours == listing(await unpacked_by_umoci(store, image, tmp_path))
        finally:
            await store.snapshots.remove("c1")

    with_store(tmp_path, main)


def listing(root: Path) -> dict[bytes, object]:
    """Modes, owners, lengths, contents; times are those of the extraction for directories."""
    return {path: (*entry[:4], entry[5]) for path, entry in scan(root).items()}


async def unpacked_by_umoci(store: Store, image: Image, tmp_path: Path) -> Path:
    layout, bundle = tmp_path / "layout", tmp_path / "bundle"
    await save_archive([image], layout, "oci-dir", store.library)
    index = (layout / "index.json").read_text()
    (layout / "index.json").write_text(index.replace("localhost/a:1", "a"))
    subprocess.run(  # noqa: ASYNC221 - nothing else runs
        ["umoci", "unpack", "--image", f"{layout}:a", bundle], check=True, capture_output=True, timeout=60
    )
    return bundle / "rootfs"


def test_a_file_below_a_link_lands_where_it_leads(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        for name in ("lib", "abs", "chain", "up"):
            assert os.path.islink(root / name)
        assert {"a", "b", "c", "d", "old"} <= set(os.listdir(root / "usr/lib"))
        found = (root / "usr/lib").stat()
        assert (found.st_mode & 0o7777, found.st_uid) == (0o711, 7)
        assert (root / "usr").stat().st_mode & 0o7777 == 0o751

    mounted(tmp_path, [BASE, tar(file("lib/a"), file("abs/b"), file("chain/c"), file("up/d"))], check)


def test_directories_below_a_link_keep_their_lower_metadata(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert (root / "usr/lib/deep").stat().st_mode & 0o7777 == 0o700
        assert (root / "usr/lib/deep/x").exists()
        assert (root / "usr/lib/new").stat().st_mode & 0o7777 == 0o750

    top = tar(file("lib/deep/x"), directory("lib/new", mode=0o750), file("lib/new/y"), file("usr/lib/deep/z"))
    mounted(tmp_path, [BASE, top], check)


def test_whiteouts_below_a_link_remove_what_it_leads_to(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert not (root / "usr/lib/gone").exists()
        assert os.path.islink(root / "lib")

    mounted(tmp_path, [BASE, tar(file("lib/.wh.gone"), file("lib/new"))], check)


def test_a_link_that_leaves_the_root_or_leads_nowhere_stays_inside(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert (root / "usr/x").exists()
        assert (root / "not/there/y").exists()
        assert os.path.islink(root / "dangling")

    mounted(tmp_path, [BASE, tar(file("out/x"), file("dangling/y"))], check)
    assert not (tmp_path.parent / "usr").exists()


def test_a_link_that_is_no_directory_is_hidden(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert (root / "loop/x").exists()
        assert (root / "tofile/y").exists()
        assert (root / "usr/lib/old").read_text() == "o"

    mounted(tmp_path, [BASE, tar(file("loop/x"), file("tofile/y"))], check, exact=False)


def test_a_directory_entry_replaces_the_link(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert not os.path.islink(root / "lib")
        assert os.listdir(root / "lib") == ["x"]

    mounted(tmp_path, [BASE, tar(directory("lib", mode=0o701), file("lib/x"))], check)


def test_a_link_into_what_the_layer_removes_leads_to_a_fresh_directory(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert os.listdir(root / "usr") == ["lib"]
        assert os.listdir(root / "usr/lib") == ["x"]

    mounted(tmp_path, [BASE, tar(file(".wh.usr"), file("lib/x"))], check)


def test_links_are_looked_for_through_all_layers(tmp_path: Path) -> None:
    def check(root: Path) -> None:
        assert (root / "usr/lib/x").exists()
        assert not (root / "lib").is_symlink()
        assert (root / "lib/y").exists()

    layers = [
        BASE,
        tar(file("unrelated")),
        tar(file("lib/x")),
        tar(file(".wh.lib")),
        tar(file("lib/y")),
    ]
    mounted(tmp_path, layers, check)


def test_the_accounting_is_that_of_the_moved_tree(tmp_path: Path) -> None:
    async def main(store: Store) -> None:
        image = await store.add([BASE, tar(file("lib/a"), file("chain/b"))], "localhost/a:1")
        (verdict,) = await Repairer(store.library).verify([image], deep=False)
        assert verdict.problems == []

    with_store(tmp_path, main)
