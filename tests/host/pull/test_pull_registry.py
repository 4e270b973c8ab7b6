"""Pulls from a real docker-registry into the real store: blobs, unpacked layers, database."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import zstandard
from fault_proxy import FaultProxy
from pull_node import BASE, IMAGE, TOP, Node, check, check_tree, tree

from noded.errors import DataLoss, InvalidArgument, NotFound, PermissionDenied, RegistryUnavailable
from noded.images.library import Library
from noded.images.pull import Puller
from noded.images.repair import Repairer
from noded.model.image import Credential
from tests.support.images import Entry, Image, artifact, build, index, sha256, tar, write_layout
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("docker-registry") is None, reason="needs docker-registry"),
]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        running.push(IMAGE, "x/y", "z")
        yield running


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Node:
    made = Node(tmp_path)
    made.trust(registry)
    return made


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("docker", [False, True])
def test_an_image_is_pulled_by_tag(node: Node, registry: Registry, compression: str, docker: bool) -> None:
    image = build([BASE, TOP], compression=compression, docker=docker)
    name = registry.push(image, f"formats/{compression}-{'docker' if docker else 'oci'}", "v1")

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == image.id
        check(library, name, image)
        assert await puller.pull(name) == image.id

    node.run(work)


def chunked(layer: bytes) -> bytes:
    """A layer as zstd:chunked has it: a frame for each piece, then skippable ones with a table."""
    frames = [zstandard.compress(layer[start : start + 50_000]) for start in range(0, len(layer), 50_000)]
    table = zstandard.compress(json.dumps({"version": 1, "entries": []}).encode())
    for content in (table, bytes(64)):
        frames.append(struct.pack("<II", 0x184D2A50, len(content)) + content)
    return b"".join(frames)


def test_zstd_chunked_is_read_as_zstd(node: Node, registry: Registry) -> None:
    plain = build([BASE, TOP], compression="none", labels={"in": "chunks"})
    manifest = json.loads(plain.manifest)
    blobs = {plain.id: plain.config}
    for descriptor, layer in zip(manifest["layers"], (BASE, TOP), strict=True):
        blob = chunked(layer)
        blobs[sha256(blob)] = blob
        descriptor.update(mediaType=descriptor["mediaType"] + "+zstd", digest=sha256(blob), size=len(blob))
        descriptor["annotations"] = {"io.github.containers.zstd-chunked.manifest-checksum": sha256(b"")}
    data = json.dumps(manifest).encode()
    digests = tuple(layer["digest"] for layer in manifest["layers"])
    image = Image(data, plain.media_type, plain.config, blobs, digests)
    name = registry.push(image, "formats/chunked", "v1")

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == image.id
        check(library, name, image)

    node.run(work)


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
def test_what_skopeo_writes_as_zstd_chunked_is_read(node: Node, registry: Registry, tmp_path: Path) -> None:
    version = subprocess.run(["skopeo", "--version"], capture_output=True, text=True, check=True).stdout
    if tuple(map(int, re.findall(r"\d+", version)[:2])) < (1, 11):
        pytest.skip("THIS OLD SKOPEO DROPS THE END OF TARS FROM zstd:chunked, AGAINST THEIR diff_id")
    layout = write_layout(IMAGE, tmp_path / "layout", "x")
    name = f"{registry.host}/formats/skopeo-chunked:v1"
    options = ("--dest-tls-verify=false", "--format=oci", "--dest-compress-format=zstd:chunked")
    command = ["skopeo", "--insecure-policy", "copy", *options, f"oci:{layout}:x", f"docker://{name}"]
    subprocess.run(command, capture_output=True, check=True, timeout=60)

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == IMAGE.id
        check_tree(library, name)
        kept = library.get(name)
        assert kept is not None
        assert all(layer.media_type.endswith("+zstd") for layer in kept.layers)

    node.run(work)


def test_an_image_is_pulled_by_digest(node: Node, registry: Registry) -> None:
    name = f"{registry.host}/x/y@{IMAGE.digest}"

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == IMAGE.id
        check(library, name)
        kept = library.get(name)
        assert kept is not None
        assert (kept.tags, kept.digests) == ((), (name,))

    node.run(work)


def test_an_image_is_pulled_through_a_mirror_for_another_host(node: Node, registry: Registry) -> None:
    node.conf.write_text(
        '[[registry]]\nlocation = "quay.io"\n'
        f'[[registry.mirror]]\nlocation = "{registry.host}"\ninsecure = true\n'
    )

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull("quay.io/x/y:z") == IMAGE.id
        check(library, "quay.io/x/y:z")
        kept = library.get("quay.io/x/y:z")
        assert kept is not None
        assert kept.digests == (f"quay.io/x/y@{IMAGE.digest}",)

    node.run(work)


def test_an_index_gives_this_nodes_image(node: Node, registry: Registry) -> None:
    other = build([BASE], os_and_architecture=("linux", "s390x"))
    registry.push(other, "multi", "other")
    registry.push(IMAGE, "multi", "mine")
    arch = "amd64" if os.uname().machine == "x86_64" else "arm64"
    both = index([(other, "linux", "s390x"), (IMAGE, "linux", arch)])
    registry.push_manifest("multi", "both", both, "application/vnd.oci.image.index.v1+json")

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(f"{registry.host}/multi:both") == IMAGE.id
        check(library, f"{registry.host}/multi:both")

    node.run(work)


def test_an_image_survives_a_restart_and_is_not_downloaded_again(node: Node, tmp_path: Path) -> None:
    with Registry(tmp_path / "own") as own:
        name = own.push(IMAGE, "x/y", "z")
        node.trust(own)

        async def first(puller: Puller, library: Library) -> None:
            await puller.pull(name)

        async def second(puller: Puller, library: Library) -> None:
            check(library, name)
            shutil.rmtree(tmp_path / "own" / "storage/docker/registry/v2/blobs/sha256", ignore_errors=True)
            with pytest.raises(NotFound):
                await puller.pull(name)
            check(library, name)

        node.run(first)
        node.run(second)


def test_a_private_registry_checks_the_login_each_time(node: Node, tmp_path: Path) -> None:
    with Registry(tmp_path / "private", private=True) as private:
        name = private.push(IMAGE, "x/y", "z")
        node.trust(private)
        good, bad = Credential(username=USER, password=PASSWORD), Credential(username=USER, password="no")

        async def work(puller: Puller, library: Library) -> None:
            with pytest.raises(PermissionDenied, match="wants a login"):
                await puller.pull(name)
            with pytest.raises(PermissionDenied, match="refused the login"):
                await puller.pull(name, bad)
            assert await puller.pull(name, good) == IMAGE.id
            with pytest.raises(PermissionDenied, match="refused the login"):
                await puller.pull(name, bad)
            assert await puller.pull(name, good) == IMAGE.id

        node.run(work)


def test_a_missing_tag_is_not_found_and_leaves_nothing(node: Node, registry: Registry) -> None:
    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(NotFound, match=f"{registry.host}/x/y:none: registry {registry.host} has no"):
            await puller.pull(f"{registry.host}/x/y:none")

    node.run(work)
    assert node.is_empty()


@pytest.mark.parametrize("damage", ["changed", "truncated", "missing"])
def test_a_damaged_layer_is_told_and_leaves_nothing(node: Node, tmp_path: Path, damage: str) -> None:
    with Registry(tmp_path / "own") as own:
        name = own.push(IMAGE, "x/y", "z")
        node.trust(own)
        blob = own.blob_path(IMAGE.layer_digests[1])
        data = blob.read_bytes()
        if damage == "missing":
            blob.unlink()
        else:
            blob.write_bytes(data[:-1] if damage == "truncated" else data[:-9] + bytes(9))

        async def work(puller: Puller, library: Library) -> None:
            kind = NotFound if damage == "missing" else DataLoss
            with pytest.raises(kind, match=f"cannot pull {name}"):
                await puller.pull(name)
            assert library.list() == ()

        node.run(work)
    assert node.is_empty()


def test_a_hostile_layer_is_told_in_one_line_and_leaves_nothing(node: Node, registry: Registry) -> None:
    bad = build([BASE, tar([Entry("good", b""), Entry("new\nline/../../../etc/passwd", b"pwned")])])
    name = registry.push(bad, "hostile/a", "v1")
    diff_id = json.loads(bad.config)["rootfs"]["diff_ids"][1]

    async def work(puller: Puller, library: Library) -> None:
        with pytest.raises(InvalidArgument) as caught:
            await puller.pull(name)
        assert str(caught.value) == (
            f"cannot pull {name}: layer {diff_id}, entry 'new\\nline/../../../etc/passwd': "
            'its path has a ".." component'
        )
        assert library.list() == ()

    node.run(work)
    assert node.is_empty()


def test_a_registry_that_stalls_or_is_down_is_unavailable(node: Node, tmp_path: Path) -> None:
    own = Registry(tmp_path / "own")
    name = own.push(IMAGE, "x/y", "z")
    node.trust(own)

    async def work(puller: Puller, library: Library) -> None:
        own.stall()
        with trio.move_on_after(0.5) as scope:
            await puller.pull(name)
        assert scope.cancelled_caught
        assert trio.current_time() - scope.deadline < 1
        own.resume()
        own.close()
        with pytest.raises(RegistryUnavailable, match="cannot be reached"):
            await puller.pull(name)

    try:
        node.run(work)
    finally:
        own.resume()
        own.close()
    assert node.is_empty()


def test_a_pull_cancelled_at_any_moment_leaves_nothing_or_an_image(node: Node, registry: Registry) -> None:
    name = f"{registry.host}/x/y:z"

    async def work(puller: Puller, library: Library) -> None:
        for step in range(25):
            with trio.move_on_after(step * 0.004):
                await puller.pull(name)
            if library.get(name) is not None:
                check(library, name)
                await library.remove(name)
            assert library.list() == ()
            assert await trio.to_thread.run_sync(node.is_empty)

    node.run(work)


def test_twenty_pulls_share_one_download(node: Node, registry: Registry) -> None:
    name = f"{registry.host}/x/y:z"
    results: list[str] = []

    async def work(puller: Puller, library: Library) -> None:
        async def one() -> None:
            results.append(await puller.pull(name))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(one)
        check(library, name)

    node.run(work)
    assert results == [IMAGE.id] * 20


MODEL = artifact({"model.bin": os.urandom(300_000), "docs/README.md": b"read me"})


def test_an_artifact_is_pulled_as_files_that_share_the_space_of_their_blobs(
    node: Node, registry: Registry
) -> None:
    name = registry.push(MODEL, "models/a", "v1")

    async def work(puller: Puller, library: Library) -> None:
        assert await puller.pull(name) == MODEL.digest
        assert await puller.pull(name) == MODEL.digest
        kept = library.get(name)
        assert kept is not None
        assert kept.artifact is not None
        (chain_id,) = kept.chain_ids
        root = library.layers.tree(chain_id)
        assert (root / "docs/README.md").read_bytes() == b"read me"
        model = root / "model.bin"
        assert model.stat().st_mode & 0o777 == 0o444
        assert model.stat().st_ino == library.content.path(MODEL.layer_digests[0]).stat().st_ino
        info = await library.fs_info()
        assert 300_000 < info.image.used_bytes < 400_000

    node.run(work)

    async def again(_puller: Puller, library: Library) -> None:
        assert [image.id for image in library.list()] == [MODEL.digest]
        await library.remove(name)

    node.run(again)
    assert node.is_empty()


def test_what_a_verification_finds_damaged_is_downloaded_again(node: Node, tmp_path: Path) -> None:
    """One blob below a good tree; then a tree whose blob is gone as well."""
    with Registry(tmp_path / "own") as own, FaultProxy(own.host) as proxy:
        own.push(IMAGE, "x/y", "z")
        name = f"{proxy.host}/x/y:z"
        node.trust(proxy.host)
        base, top = IMAGE.layer_digests

        async def work(puller: Puller, library: Library) -> None:
            repairer = Repairer(library, puller.restore)
            await puller.pull(name)
            library.content.path(top).write_bytes(bytes(library.content.size(top)))
            proxy.requests.clear()
            (verdict,) = await repairer.verify(library.own(), deep=True)
            assert top in verdict.problems[0]
            assert (verdict.usable, verdict.repaired) == (True, True)
            assert [line for line, _ in proxy.requests] == [f"GET /v2/x/y/blobs/{top}"]
            check(library, name)

            library.content.path(base).unlink()
            (tree(library, name, 0) / "etc/name").unlink()
            (verdict,) = await repairer.verify(library.own(), deep=False)
            assert (verdict.usable, verdict.repaired) == (True, True)
            check(library, name)

        node.run(work)

        async def without_registry(puller: Puller, library: Library) -> None:
            library.content.path(top).write_bytes(b"")
            own.close()
            (verdict,) = await Repairer(library, puller.restore).verify(library.own(), deep=True)
            assert (verdict.usable, verdict.repaired) == (True, False)
            assert re.search("not downloaded again: .*cannot pull .*: registry", verdict.problems[1])
            assert not library.content.has(top)
            check_tree(library, name)

        node.run(without_registry)


@pytest.mark.parametrize("deep", [True, False])
def test_a_damaged_file_of_an_artifact_is_made_anew(node: Node, registry: Registry, deep: bool) -> None:
    """It shares its bytes with a blob: another blob must be followed by another file."""
    name = registry.push(MODEL, "models/damaged", "v1")
    digest = MODEL.layer_digests[0]

    async def work(puller: Puller, library: Library) -> None:
        image_id = await puller.pull(name)
        blob = library.content.path(digest)
        with blob.open("r+b") as file:  # as a bad disk does it: in place
            file.write(b"damage") if deep else file.truncate(9)
        (verdict,) = await Repairer(library, puller.restore).verify(library.own(), deep=deep)
        assert (verdict.usable, verdict.repaired) == (True, True)
        ours = tree(library, image_id, 0) / "model.bin"
        assert ours.read_bytes() == MODEL.blobs[digest]
        assert ours.samefile(blob)
        (verdict,) = await Repairer(library, puller.restore).verify(library.own(), deep=True)
        assert verdict.problems == []
        await library.remove(image_id)

    node.run(work)
    assert node.is_empty()


@pytest.mark.parametrize("keep_blobs", [True, False])
def test_images_of_one_tree_keep_the_blobs_of_both(
    tmp_path: Path, registry: Registry, keep_blobs: bool
) -> None:
    """The same layers, compressed in two ways: one tree, but who saves an image needs its own blobs."""
    made = Node(tmp_path, keep_blobs=keep_blobs)
    first, second = (build([BASE, TOP], compression=kind, labels={"kind": kind}) for kind in ("gzip", "zstd"))
    registry.push(first, "one/tree", "gzip")
    registry.push(second, "one/tree", "zstd")
    with FaultProxy(registry.host) as proxy:
        made.trust(proxy.host)
        names = [f"{proxy.host}/one/tree:{tag}" for tag in ("gzip", "zstd")]

        async def work(puller: Puller, library: Library) -> None:
            for together in (False, True):
                if together:
                    async with trio.open_nursery() as nursery:
                        for name in names:
                            nursery.start_soon(puller.pull, name)
                else:
                    for name in names:
                        await puller.pull(name)
                for name, image in zip(names, (first, second), strict=True):
                    check_tree(library, name, image)
                kept = {digest for digest, _ in library.content.blobs()}
                layers = {*first.layer_digests, *second.layer_digests}
                assert kept & layers == (layers if keep_blobs else set())
                asked = [line for line, _ in proxy.requests if any(digest in line for digest in layers)]
                assert keep_blobs == (len(asked) == 4) or together
                assert len(library.layers.records()) == 2
                for name in names:
                    await library.remove(name)
                proxy.requests.clear()

        made.run(work)
    assert made.is_empty()


@pytest.mark.parametrize("files", [False, True], ids=["image", "artifact"])
def test_without_keeping_blobs_only_what_containers_need_stays(
    tmp_path: Path, registry: Registry, files: bool
) -> None:
    made = Node(tmp_path, keep_blobs=False)
    made.trust(registry)
    image = MODEL if files else IMAGE
    name = registry.push(image, "kept/a", "v1")

    async def work(puller: Puller, library: Library) -> None:
        image_id = await puller.pull(name)
        kept = {digest for digest, _ in library.content.blobs()}
        everything = {*image.blobs, image.digest}
        assert kept == (everything if files else {image.id, image.digest})
        assert await puller.pull(name) == image_id

    made.run(work)

    async def again(puller: Puller, library: Library) -> None:
        image_id = await puller.pull(name)
        if not files:
            check_tree(library, name)
        await library.remove(image_id)

    made.run(again)
    assert made.is_empty()
