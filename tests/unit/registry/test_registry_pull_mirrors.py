"""registries.conf and stored credentials in pulls."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from pull_world import BIG, IMAGE, World
from registry_fakes import FakeRegistry, drop_after, status

from noded.errors import (
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
)
from noded.model.image import Credential


def mirrored(world: World, *mirrors: FakeRegistry, last: FakeRegistry) -> None:
    tables = "".join(f'[[registry.mirror]]\nlocation = "{one.host}/m"\ninsecure = true\n' for one in mirrors)
    world.conf.write_text(
        f'[[registry]]\nprefix = "quay.io/x"\nlocation = "{last.host}/a"\ninsecure = true\n{tables}'
    )


def test_a_mirror_serves_another_host_and_the_name_stays(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as mirror:
        mirror.push(IMAGE, "m/b", "t")
        mirrored(world, mirror, last=registry)
        assert world.pull("quay.io/x/b:t") == IMAGE.id
        assert world.library.images["quay.io/x/b:t"].digests == (f"quay.io/x/b@{IMAGE.digest}",)
        assert registry.requests == []


def test_a_mirror_without_the_image_is_passed_over(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as mirror:
        mirrored(world, mirror, last=registry)
        assert world.pull("quay.io/x/b:t") == IMAGE.id
        assert mirror.count("m/b") == 1


def test_a_blob_that_a_mirror_damaged_comes_from_the_registry(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as mirror:
        mirror.push(IMAGE, "m/b", "t")
        mirror.content.blobs[IMAGE.layer_digests[1]] = bytes(len(BIG))
        mirror.on(f"blobs/{IMAGE.layer_digests[0]}", drop_after(100), times=9)
        mirrored(world, mirror, last=registry)
        assert world.pull("quay.io/x/b:t") == IMAGE.id
        assert registry.count("blobs") == 2


def test_every_endpoint_that_failed_is_told(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as mirror:
        mirror.on("manifests", status(503), times=9)
        registry.on("manifests", status(404), times=9)
        mirrored(world, mirror, last=registry)
        error = world.fails("quay.io/x/b:t")
        assert isinstance(error, NotFound)
        (note,) = error.__notes__
        assert f"mirror {mirror.host}/m/b answered 503" in note


def test_a_clients_credential_is_not_given_to_a_mirror(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as mirror:
        mirror.content.auth = registry.content.auth = "basic"
        mirror.content.login = registry.content.login = ("me", "right")
        mirrored(world, mirror, last=registry)
        assert world.pull("quay.io/x/b:t", Credential(username="me", password="right")) == IMAGE.id
        assert set(mirror.authorizations()) == {""}


def test_a_stored_credential_is_used_when_the_client_has_none(world: World, registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.login = "basic", ("me", "right")
    world.auth.write_text(f'{{"auths": {{"{registry.host}/a": {{"auth": "bWU6cmlnaHQ="}}}}}}')
    assert world.pull(f"{registry.host}/a/b:t") == IMAGE.id
    assert isinstance(world.pull(f"{registry.host}/a/b:t", Credential()), str)


def test_a_short_name_follows_its_alias(world: World, registry: FakeRegistry) -> None:
    world.trust(registry, extra=f'[aliases]\nmine = "{registry.host}/a/b"\n')
    assert world.pull("mine:t") == IMAGE.id
    assert str(world.puller.names("mine:t")[0]) == f"{registry.host}/a/b:t"


def test_search_registries_are_tried_until_one_has_it(world: World, registry: FakeRegistry) -> None:
    with FakeRegistry() as empty:
        search = f'unqualified-search-registries = ["{empty.host}", "{registry.host}"]\n'
        world.trust(empty, registry)
        world.conf.write_text(search + world.conf.read_text())
        assert world.pull("a/b:t") == IMAGE.id
        assert f"{registry.host}/a/b:t" in world.library.images
        assert isinstance(world_fails_again(world), NotFound)


def world_fails_again(world: World) -> NodedError:
    with pytest.raises(NodedError) as caught:
        world.pull("no/such:t")
    return caught.value


def test_a_changed_registries_conf_counts_at_the_next_pull(world: World, registry: FakeRegistry) -> None:
    async def main() -> None:
        world.conf.write_text("")
        async with world.running() as puller:
            with pytest.raises(FailedPrecondition, match="insecure = true"):
                await puller.pull(f"{registry.host}/a/b:t")
            world.conf.write_text("broken")
            with pytest.raises(InvalidArgument, match=str(world.conf)):
                await puller.pull(f"{registry.host}/a/b:t")
            world.trust(registry)
            assert await puller.pull(f"{registry.host}/a/b:t") == IMAGE.id

    trio.run(main)


def test_a_bad_registries_conf_does_not_stop_the_service(world: World) -> None:
    world.conf.write_text("broken")

    async def main() -> None:
        async with world.running() as puller:
            with pytest.raises(InvalidArgument):
                await puller.pull("x/y")

    trio.run(main)
