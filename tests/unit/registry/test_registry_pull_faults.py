"""Pulls that fail: the message is right and nothing is left."""

from __future__ import annotations

from typing import Any

import pytest
from pull_world import BIG, IMAGE, SMALL, World, image
from registry_fakes import FakeRegistry, drop_after, send, stall, status

from noded.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
    ResourceExhausted,
    Unavailable,
)
from tests.support import images as build


def test_a_platform_that_is_missing_is_named(world: World, registry: FakeRegistry) -> None:
    registry.push_index(build.index([(IMAGE, "linux", "s390x")]), "a/multi", "t")
    error = world.fails(f"{registry.host}/a/multi:t")
    assert isinstance(error, NotFound)
    assert "linux/amd64, it has linux/s390x" in str(error)


def test_a_dropped_layer_is_resumed_into_the_same_unpack(world: World, registry: FakeRegistry) -> None:
    registry.on(f"blobs/{IMAGE.layer_digests[1]}", drop_after(123_456))
    assert world.pull(f"{registry.host}/a/b:t") == IMAGE.id
    assert world.layers.from_pipe == [True, True]
    assert registry.count(f"blobs/{IMAGE.layer_digests[1]}") == 2


def test_a_layer_with_other_bytes_is_data_loss(world: World, registry: FakeRegistry) -> None:
    registry.content.blobs[IMAGE.layer_digests[1]] = bytes(len(BIG))
    error = world.fails(f"{registry.host}/a/b:t")
    assert isinstance(error, DataLoss)
    assert f"cannot pull {registry.host}/a/b:t: registry {registry.host} sent a damaged layer" in str(error)
    assert not world.content.has(IMAGE.layer_digests[1])


def test_a_truncated_layer_is_data_loss(world: World, registry: FakeRegistry) -> None:
    registry.content.blobs[IMAGE.layer_digests[1]] = BIG[:-1]
    assert isinstance(world.fails(f"{registry.host}/a/b:t"), DataLoss)


def test_a_config_with_other_bytes_is_data_loss(world: World, registry: FakeRegistry) -> None:
    registry.content.blobs[IMAGE.id] = IMAGE.config.replace(b"amd64", b"arm64")
    error = world.fails(f"{registry.host}/a/b:t")
    assert isinstance(error, DataLoss)
    assert "config" in str(error)


def test_a_diff_id_that_lies_is_data_loss(world: World, registry: FakeRegistry) -> None:
    lying = image(SMALL)
    config = lying.config.replace(build.sha256(SMALL).encode(), build.sha256(BIG).encode())
    manifest = lying.manifest.replace(lying.id.encode(), build.sha256(config).encode())
    manifest = manifest.replace(str(len(lying.config)).encode(), str(len(config)).encode())
    blobs = {build.sha256(config): config, **lying.blobs}
    registry.push(build.Image(manifest, lying.media_type, config, blobs), "a/lie", "t")
    error = world.fails(f"{registry.host}/a/lie:t")
    assert isinstance(error, DataLoss)
    assert str(error).startswith(f"cannot pull {registry.host}/a/lie:t: layer")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (status(401), PermissionDenied),
        (status(404), NotFound),
        (status(500), RegistryUnavailable),
        (send(b"{}"), InvalidArgument),
        (send(b'{"schemaVersion": 1}'), FailedPrecondition),
    ],
)
def test_a_manifest_that_fails_names_the_image(
    world: World, registry: FakeRegistry, fault: Any, kind: type[NodedError]
) -> None:
    registry.on("manifests/", fault, times=9)
    error = world.fails(f"{registry.host}/a/b:t")
    assert type(error) is kind
    assert f"cannot pull {registry.host}/a/b:t: " in str(error)


def test_a_full_disk_while_unpacking_ends_the_pull(world: World, registry: FakeRegistry) -> None:
    world.layers.failures = [ResourceExhausted("no space")]
    assert isinstance(world.fails(f"{registry.host}/a/b:t"), ResourceExhausted)


def test_an_unpacker_that_dies_gets_the_file_instead(world: World, registry: FakeRegistry) -> None:
    world.layers.failures = [Unavailable("the unpack process ended")]
    assert world.pull(f"{registry.host}/a/b:t") == IMAGE.id
    assert False in world.layers.from_pipe
    assert registry.count("blobs") == 3


def test_an_artifact_with_an_unsafe_name_is_refused(world: World, registry: FakeRegistry) -> None:
    registry.push(build.artifact({"../../etc/cron.d/x": b"* * * * *"}), "a/model", "t")
    error = world.fails(f"{registry.host}/a/model:t")
    assert isinstance(error, InvalidArgument)
    assert str(error).startswith("cannot pull ")
    assert "../../etc/cron.d/x" in str(error)


def test_an_image_with_a_layer_that_is_no_tar_is_refused(world: World, registry: FakeRegistry) -> None:
    manifest = IMAGE.manifest.replace(build.OCI_LAYER.encode(), b"application/vnd.example.layer")
    registry.push(build.Image(manifest, IMAGE.media_type, IMAGE.config, IMAGE.blobs), "a/odd", "t")
    error = world.fails(f"{registry.host}/a/odd:t")
    assert isinstance(error, InvalidArgument)
    assert "application/vnd.example.layer" in str(error)


def test_a_bad_reference_is_refused_before_anything_is_asked(world: World, registry: FakeRegistry) -> None:
    assert isinstance(world.fails("UPPER"), InvalidArgument)
    assert isinstance(world.fails(IMAGE.id), InvalidArgument)
    assert registry.requests == []


def test_a_stored_blob_that_was_damaged_is_downloaded_again(world: World, registry: FakeRegistry) -> None:
    damaged = IMAGE.layer_digests[1]
    world.content.put(BIG)
    world.content.path(damaged).write_bytes(bytes(len(BIG)))
    assert world.pull(f"{registry.host}/a/b:t") == IMAGE.id
    assert registry.count(f"blobs/{damaged}") == 1
    world.content.verify(damaged)


def test_a_layer_that_the_unpacker_refuses_is_not_downloaded_to_its_end(
    world: World, registry: FakeRegistry
) -> None:
    registry.on(f"blobs/{IMAGE.layer_digests[1]}", stall(after=1000), times=9)
    world.layers.failures = [InvalidArgument("entry '../x' leaves the layer")] * 2
    error = world.fails(f"{registry.host}/a/b:t")
    assert str(error) == f"cannot pull {registry.host}/a/b:t: entry '../x' leaves the layer"
