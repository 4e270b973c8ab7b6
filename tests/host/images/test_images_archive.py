"""Archives against skopeo: it reads what is saved here, and what it writes is loaded."""

# ruff: noqa: ASYNC240 - nothing else runs on the event loops of these tests

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from noded.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    SignatureValidationFailed,
)
from noded.images.archive import load_archive, save_archive
from noded.images.archive_read import CONTAINERD_NAME, REF_NAME
from noded.wire.reference import Reference
from tests.support.layer_cases import Store, directory, file, make_image, sha256, tar, with_store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed"),
]

BASE = tar(directory("./"), file("etc/base", b"b" * 9000))
TOP = tar(file("etc/top", b"t"))
TAG = "localhost/team/app:1"
SCHEMES = {"oci": "oci-archive", "oci-dir": "oci", "docker": "docker-archive"}


def skopeo(*arguments: str) -> str:
    run = subprocess.run(["skopeo", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("form", SCHEMES)
def test_skopeo_reads_what_was_saved(tmp_path: Path, form: str) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE, TOP], TAG, config={"Env": ["A=1"], "Labels": {"x": "y"}})
        await save_archive([image], tmp_path / "saved", form, store.library)
        inspected = json.loads(skopeo("inspect", f"{SCHEMES[form]}:{tmp_path / 'saved'}"))
        assert inspected["Labels"] == {"x": "y"}
        assert len(inspected["Layers"]) == 2
        copied = tmp_path / "copied"
        skopeo("copy", f"{SCHEMES[form]}:{tmp_path / 'saved'}", f"oci:{copied}:t")
        assert list(store.content.scratch.iterdir()) == []

    with_store(tmp_path / "store", test)


@pytest.mark.parametrize("form", SCHEMES)
def test_a_saved_image_is_the_same_when_it_is_loaded_elsewhere(tmp_path: Path, form: str) -> None:
    async def save(store: Store) -> None:
        image = await store.add([BASE, TOP], TAG, "localhost/team/app:2", config={"Cmd": ["/x"]})
        other = await store.add([BASE], "localhost/other:1")
        await save_archive([image, other], tmp_path / "saved", form, store.library)

    async def load(store: Store) -> None:
        loaded = await load_archive(tmp_path / "saved", store.library)
        assert [image.tags for image in loaded] == [(TAG, "localhost/team/app:2"), ("localhost/other:1",)]
        expected, _ = make_image([BASE, TOP], config={"Cmd": ["/x"]})
        assert loaded[0].id == expected.id
        assert loaded[0].config.cmd == ("/x",)
        assert [layer.chain_id for layer in loaded[0].layers] == [layer.chain_id for layer in expected.layers]
        if form != "docker":
            assert loaded[0].manifest_digest == expected.manifest_digest
            assert f"localhost/team/app@{expected.manifest_digest}" in loaded[0].digests
        assert store.library.get(TAG) == loaded[0]
        assert (store.layers.tree(loaded[0].layers[1].chain_id) / "etc/top").read_bytes() == b"t"
        again = await load_archive(tmp_path / "saved", store.library)
        assert [image.id for image in again] == [image.id for image in loaded]
        assert store.library._leases == {}

    with_store(tmp_path / "one", save)
    with_store(tmp_path / "two", load)


@pytest.mark.parametrize(
    "target",
    [
        "oci-archive:{}:localhost/team/app:1",
        "oci:{}:localhost/team/app:1",
        "docker-archive:{}:localhost/team/app:1",
    ],
)
def test_what_skopeo_wrote_is_loaded(tmp_path: Path, target: str) -> None:
    async def make(store: Store) -> None:
        image = await store.add([BASE, TOP], TAG)
        await save_archive([image], tmp_path / "saved", "oci", store.library)

    async def load(store: Store) -> None:
        [image] = await load_archive(tmp_path / "written", store.library)
        assert image.tags == (TAG,)
        assert (store.layers.tree(image.layers[0].chain_id) / "etc/base").stat().st_size == 9000

    with_store(tmp_path / "one", make)
    skopeo("copy", f"oci-archive:{tmp_path / 'saved'}", target.format(tmp_path / "written"))
    with_store(tmp_path / "two", load)


@pytest.mark.parametrize("compressor", ["gzip", "zstd"])
def test_a_compressed_archive_is_loaded(tmp_path: Path, compressor: str) -> None:
    import zstandard

    async def make(store: Store) -> None:
        image = await store.add([BASE, TOP], TAG)
        await save_archive([image], tmp_path / "saved", "docker", store.library)

    async def load(store: Store) -> None:
        [image] = await load_archive(tmp_path / "compressed", store.library)
        assert image.tags == (TAG,)
        assert list(store.content.scratch.iterdir()) == []

    with_store(tmp_path / "one", make)
    data = (tmp_path / "saved").read_bytes()
    packed = gzip.compress(data) if compressor == "gzip" else zstandard.ZstdCompressor().compress(data)
    (tmp_path / "compressed").write_bytes(packed)
    with_store(tmp_path / "two", load)


def test_an_index_of_several_platforms_gives_the_one_for_this_node(tmp_path: Path) -> None:
    from noded.images.platform import host_platform

    host = host_platform()
    image, blobs = make_image([BASE])
    layout = tmp_path / "layout"
    (layout / "blobs/sha256").mkdir(parents=True)
    other = {"os": "linux", "architecture": "mips"}
    ours = {"os": host.os, "architecture": host.architecture}
    if host.variant:
        ours["variant"] = host.variant
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.manifest_digest,
        "size": 1,
    }
    entry["size"] = len(blobs[image.manifest_digest])
    index = json.dumps(
        {
            "schemaVersion": 2,
            "manifests": [
                {**entry, "digest": sha256(b"not here"), "platform": other},
                {**entry, "platform": ours},
                {
                    **entry,
                    "digest": sha256(b"nor here"),
                    "platform": {"os": "unknown", "architecture": "unknown"},
                },
            ],
        }
    ).encode()
    for digest, data in {**blobs, sha256(index): index}.items():
        (layout / "blobs/sha256" / digest[7:]).write_bytes(data)
    top = {
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": sha256(index),
        "size": len(index),
        "annotations": {CONTAINERD_NAME: "docker.io/library/app:3", REF_NAME: "3"},
    }
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))

    async def load(store: Store) -> None:
        [loaded] = await load_archive(layout, store.library)
        assert loaded.id == image.id
        assert loaded.tags == ("docker.io/library/app:3",)

    with_store(tmp_path / "store", load)


def damage(path: Path, name: str, data: bytes | None) -> None:
    """Rewrite one member of a tar, or leave it out."""
    kept = path.with_suffix(".kept")
    path.rename(kept)
    with tarfile.open(kept) as source, tarfile.open(path, "w") as target:
        for member in source:
            content = source.extractfile(member)
            assert content is not None
            stored = content.read()
            if name in member.name:
                if data is None:
                    continue
                stored = data
            member.size = len(stored)
            target.addfile(member, io.BytesIO(stored))


@pytest.mark.parametrize("form", ["oci", "docker"])
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("layer missing", NotFound),
        ("layer damaged", DataLoss),
        ("no index", InvalidArgument),
        ("index no json", InvalidArgument),
        ("not a tar", DataLoss),
    ],
)
def test_a_damaged_archive_leaves_nothing(
    tmp_path: Path, form: str, change: str, error: type[Exception]
) -> None:
    image, _ = make_image([BASE, TOP])
    archive = tmp_path / "saved"

    async def make(store: Store) -> None:
        await save_archive([await store.add([BASE, TOP], TAG)], archive, form, store.library)

    async def load(store: Store) -> None:
        with pytest.raises(error):
            await load_archive(archive, store.library)
        assert store.library.list() == ()
        assert list(store.content.blobs()) == []
        assert list(store.content.scratch.iterdir()) == []
        assert store.layers.known() == frozenset()

    with_store(tmp_path / "one", make)
    layer = image.layers[1].blob_digest[7:] if form == "oci" else image.layers[1].diff_id[7:]
    if change == "layer missing":
        damage(archive, layer, None)
    elif change == "layer damaged":
        damage(archive, layer, gzip.compress(tar(file("evil"))))
    elif change == "no index":
        damage(archive, "index.json" if form == "oci" else "manifest.json", None)
    elif change == "index no json":
        damage(archive, "index.json" if form == "oci" else "manifest.json", b"{")
    else:
        archive.write_bytes(b"not a tar" * 1000)
    with_store(tmp_path / "two", load)


def test_saving_says_when_layers_are_not_kept(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], TAG)
        with pytest.raises(FailedPrecondition, match="keep_blobs"):
            await save_archive([image], tmp_path / "saved", "oci", store.library)
        assert [path.name for path in tmp_path.iterdir()] == ["store"]

    with_store(tmp_path / "store", test, keep_blobs=False)


def test_saving_never_merges_into_a_directory(tmp_path: Path) -> None:
    async def test(store: Store) -> None:
        image = await store.add([BASE], TAG)
        (tmp_path / "saved").mkdir()
        with pytest.raises(AlreadyExists, match="saved"):
            await save_archive([image], tmp_path / "saved", "oci-dir", store.library)
        with pytest.raises(InvalidArgument, match="format"):
            await save_archive([image], tmp_path / "other", "zip", store.library)

    with_store(tmp_path / "store", test)


def test_an_archive_that_the_policy_refuses_leaves_nothing(tmp_path: Path) -> None:
    asked: list[tuple[list[str], list[str]]] = []

    async def refuse(names: Sequence[Reference], digests: Sequence[str], namespace: str) -> None:
        asked.append(([name.canonical for name in names], list(digests)))
        raise SignatureValidationFailed("refused")

    async def save(store: Store) -> None:
        image = await store.add([BASE], TAG)
        await save_archive([image], tmp_path / "saved", "oci", store.library)

    async def load(store: Store) -> None:
        with pytest.raises(SignatureValidationFailed):
            await load_archive(tmp_path / "saved", store.library, refuse)
        assert asked == [([TAG], [make_image([BASE], TAG)[0].manifest_digest])]
        assert not store.library.list()
        assert not list(store.content.blobs())

    with_store(tmp_path / "one", save)
    with_store(tmp_path / "two", load)
