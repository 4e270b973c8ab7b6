"""What a pull asks of the registry, and what it leaves in the store."""

from __future__ import annotations

import pytest
from pull_world import IMAGE, OTHER, SMALL, World, image
from registry_fakes import FakeRegistry

from noded.errors import (
    PermissionDenied,
)
from noded.model.image import Credential
from tests.support import images as build


def test_a_pull_brings_everything_once(world: World, registry: FakeRegistry) -> None:
    name = f"{registry.host}/a/b:t"
    assert world.pull(name) == IMAGE.id
    kept = world.library.images[name]
    assert kept.tags == (name,)
    assert kept.digests == (f"{registry.host}/a/b@{IMAGE.digest}",)
    assert kept.manifest_digest == IMAGE.digest
    assert kept.size_bytes == len(IMAGE.manifest) + sum(len(blob) for blob in IMAGE.blobs.values())
    assert kept.config.cmd == ("/bin/sh",)
    assert [layer.blob_digest for layer in kept.layers] == list(IMAGE.layer_digests)
    for digest in (*IMAGE.blobs, IMAGE.digest):
        assert world.content.has(digest)
        assert any(digest in leased for leased in world.library.leased)
    assert {layer.chain_id for layer in kept.layers} <= world.library.leased[0]
    assert world.library.leases == {}
    assert registry.count("manifests") == 1
    assert registry.count("blobs") == 3
    assert world.layers.from_pipe == [True, True]


def test_a_present_image_costs_one_head(world: World, registry: FakeRegistry) -> None:
    name = f"{registry.host}/a/b:t"
    world.pull(name)
    registry.requests.clear()
    assert world.pull(name) == IMAGE.id
    assert [(one.method, one.path) for one in registry.requests] == [("HEAD", "/v2/a/b/manifests/t")]


def test_a_present_image_needs_a_good_credential(world: World, registry: FakeRegistry) -> None:
    name = f"{registry.host}/a/b:t"
    world.pull(name)
    registry.content.auth, registry.content.login = "basic", ("me", "right")
    assert world.pull(name, Credential(username="me", password="right")) == IMAGE.id
    with pytest.raises(PermissionDenied, match="refused the login"):
        world.pull(name, Credential(username="me", password="wrong"))
    with pytest.raises(PermissionDenied, match="wants a login"):
        world.pull(name)


def test_a_tag_that_moved_is_pulled_again_without_the_layers_that_are_here(
    world: World, registry: FakeRegistry
) -> None:
    name = f"{registry.host}/a/b:t"
    world.pull(name)
    moved = image(SMALL, OTHER)
    registry.push(moved, "a/b", "t")
    registry.requests.clear()
    assert world.pull(name) == moved.id
    assert registry.count(f"blobs/{IMAGE.layer_digests[0]}") == 0
    assert registry.count("blobs") == 2


def test_a_digest_reference_gives_no_tag(world: World, registry: FakeRegistry) -> None:
    world.pull(f"{registry.host}/a/b:ignored@{IMAGE.digest}")
    kept = world.library.images[IMAGE.id]
    assert kept.tags == ()
    assert kept.digests == (f"{registry.host}/a/b@{IMAGE.digest}",)
    assert world.pull(f"{registry.host}/a/b@{IMAGE.digest}") == IMAGE.id
    assert registry.requests[-1].method == "HEAD"


def test_an_artifact_is_kept_by_its_manifest_digest(world: World, registry: FakeRegistry) -> None:
    model = build.artifact({"model.bin": b"weights" * 1000, "docs/README.md": b"read me", "": b"untitled"})
    registry.push(model, "a/model", "t")
    name = f"{registry.host}/a/model:t"
    assert world.pull(name) == model.digest
    kept = world.library.images[name]
    assert kept.artifact is not None
    assert (kept.artifact.type, kept.artifact.config_digest) == ("application/vnd.example.model", model.id)
    assert kept.size_bytes == len(model.manifest) + sum(len(blob) for blob in model.blobs.values())
    untitled = model.layer_digests[2].replace(":", "-")
    assert world.layers.assembled == [("model.bin", "docs/README.md", untitled)]
    assert all(world.content.has(digest) for digest in (*model.blobs, model.digest))
    assert world.library.leases == {}
    registry.requests.clear()
    assert world.pull(name) == model.digest
    assert [one.method for one in registry.requests] == ["HEAD"]


def test_an_index_gives_the_image_of_this_platform(world: World, registry: FakeRegistry) -> None:
    arm = image(SMALL, arch="arm64")
    registry.push(arm, "a/multi")
    registry.push(IMAGE, "a/multi")
    index = build.index([(arm, "linux", "arm64"), (IMAGE, "linux", "amd64")])
    digest = registry.push_index(index, "a/multi", "t")
    assert world.pull(f"{registry.host}/a/multi:t") == IMAGE.id
    kept = world.library.images[IMAGE.id]
    repository = f"{registry.host}/a/multi"
    assert kept.digests == (f"{repository}@{digest}", f"{repository}@{IMAGE.digest}")
    assert kept.manifest_digest == IMAGE.digest
    assert world.content.has(digest)
    registry.requests.clear()
    world.pull(f"{repository}:t")
    assert [one.method for one in registry.requests] == ["HEAD"]
