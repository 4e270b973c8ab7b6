"""Pulls at the same time, cancelled, stopped."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from pull_world import BIG, IMAGE, SMALL, TWIN, World, image
from registry_fakes import FakeRegistry, stall, status

from noded.errors import (
    PermissionDenied,
    Unavailable,
)
from noded.images.progress import Phase
from noded.model.image import Credential
from tests.support import images as build


def test_twenty_pulls_at_once_are_one(world: World, registry: FakeRegistry) -> None:
    async def main() -> None:
        results = []
        async with world.running() as puller:

            async def one() -> None:
                results.append(await puller.pull(f"{registry.host}/a/b:t"))

            async with trio.open_nursery() as nursery:
                for _ in range(20):
                    nursery.start_soon(one)
        assert results == [IMAGE.id] * 20

    trio.run(main)
    assert registry.count("manifests") == 1
    assert registry.count("blobs") == 3
    assert len(world.layers.unpacked) == 2


def test_images_share_their_blobs_while_they_are_pulled(world: World, registry: FakeRegistry) -> None:
    async def main() -> None:
        async with world.running() as puller, trio.open_nursery() as nursery:
            for repository in ("b", "twin"):
                nursery.start_soon(puller.pull, f"{registry.host}/a/{repository}:t")

    trio.run(main)
    for digest in {*IMAGE.layer_digests, *TWIN.layer_digests}:
        assert registry.count(f"blobs/{digest}") == 1
    assert len(world.layers.unpacked) == len(set(world.layers.unpacked)) == 4  # BIG stands on two chains


def test_other_credentials_ask_for_themselves_and_share_the_bytes(
    world: World, registry: FakeRegistry
) -> None:
    registry.content.auth, registry.content.login = "bearer", ("me", "right")
    outcomes: list[object] = []

    async def main() -> None:
        async with world.running() as puller:

            async def one(password: str) -> None:
                try:
                    login = Credential(username="me", password=password)
                    outcomes.append(await puller.pull(f"{registry.host}/a/b:t", login))
                except PermissionDenied as error:
                    outcomes.append(type(error))

            async with trio.open_nursery() as nursery:
                for password in ("right", "wrong", "right"):
                    nursery.start_soon(one, password)

    trio.run(main)
    assert sorted(map(str, outcomes)) == sorted(map(str, [IMAGE.id, IMAGE.id, PermissionDenied]))
    assert registry.count(f"blobs/{IMAGE.layer_digests[0]}") == 1


def test_a_failure_of_another_pull_of_the_same_blob_is_not_taken_over(
    world: World, registry: FakeRegistry
) -> None:
    with FakeRegistry() as second:
        second.push(IMAGE, "c", "t")
        world.trust(registry, second)
        digest = IMAGE.layer_digests[1]
        registry.on(f"blobs/{digest}", status(403), times=9)
        outcomes: list[object] = []

        async def main() -> None:
            async with world.running() as puller:

                async def one(name: str) -> None:
                    try:
                        outcomes.append(await puller.pull(name))
                    except PermissionDenied:
                        outcomes.append("denied")

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(one, f"{registry.host}/a/b:t")
                    nursery.start_soon(one, f"{second.host}/c:t")

        trio.run(main)
    assert IMAGE.id in outcomes


def test_who_leaves_does_not_stop_the_others_and_the_last_one_ends_the_pull(
    world: World, registry: FakeRegistry
) -> None:
    registry.on("blobs/", stall(after=100), times=9)

    async def main() -> None:
        async with world.running() as puller:
            scopes = [trio.CancelScope() for _ in range(3)]

            async def one(scope: trio.CancelScope) -> None:
                with scope:
                    await puller.pull(f"{registry.host}/a/b:t")

            async with trio.open_nursery() as nursery:
                for scope in scopes:
                    nursery.start_soon(one, scope)
                await registry.until_stalled()
                for scope in scopes[:2]:
                    scope.cancel()
                await trio.testing.wait_all_tasks_blocked(0.05)
                (pull,) = puller.progress()
                assert pull.reference == f"{registry.host}/a/b:t"
                scopes[2].cancel()
            assert puller.progress() == ()
            world.nothing_left()

    trio.run(main)


@pytest.mark.parametrize("milliseconds", [1, 5, 20, 60])
def test_a_deadline_leaves_nothing(world: World, registry: FakeRegistry, milliseconds: int) -> None:
    registry.on("blobs/", stall(after=100), times=9)

    async def main() -> None:
        async with world.running() as puller:
            with pytest.raises(trio.TooSlowError), trio.fail_after(milliseconds / 1000):
                await puller.pull(f"{registry.host}/a/b:t")
            world.nothing_left()

    trio.run(main)


def test_a_cancel_while_the_unpacker_hangs_leaves_nothing(world: World, registry: FakeRegistry) -> None:
    huge = image(build.tar([build.Entry("huge", bytes(3 << 20))]))
    registry.push(huge, "a/huge", "t")

    async def main() -> None:
        world.layers.hold = trio.Event()
        async with world.running() as puller:
            with trio.move_on_after(0.5):
                await puller.pull(f"{registry.host}/a/huge:t")
            assert world.layers.active == 0
            world.nothing_left()

    trio.run(main)


def test_progress_tells_bytes_and_phases(world: World, registry: FakeRegistry) -> None:
    registry.on(f"blobs/{IMAGE.layer_digests[1]}", stall(after=100_000), times=9)

    async def main() -> None:
        async with world.running() as puller, trio.open_nursery() as nursery:
            nursery.start_soon(puller.pull, f"{registry.host}/a/b:t")
            await registry.until_stalled()
            await world.layers.one_done.wait()
            await trio.testing.wait_all_tasks_blocked(0.1)
            (pull,) = puller.progress()
            small, big = pull.layers
            assert small.done_bytes == small.total_bytes
            assert (big.phase, big.total_bytes) == (Phase.STREAMING, len(BIG))
            assert 0 < pull.total_bytes == len(BIG) + len(SMALL)
            nursery.cancel_scope.cancel()

    trio.run(main)


def test_a_pull_without_the_service_is_unavailable(world: World) -> None:
    with pytest.raises(Unavailable):
        trio.run(world.puller.pull, "quay.io/a")


def test_running_pulls_end_with_the_service(world: World, registry: FakeRegistry) -> None:
    registry.on("blobs/", stall(after=10), times=9)

    async def main() -> None:
        async with trio.open_nursery() as clients, world.running() as puller:

            async def one() -> None:
                with pytest.raises(Unavailable, match="stopping"):
                    await puller.pull(f"{registry.host}/a/b:t")

            clients.start_soon(one)
            await registry.until_stalled()

    trio.run(main)
    world.nothing_left()
