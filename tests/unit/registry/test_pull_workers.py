"""Places for layers that are extracted at once, by their compression."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from noded.images.workers import Workers
from noded.model.image import LayerRef


def layer(compression):
    media_type = f"application/vnd.oci.image.layer.v1.tar+{compression}"
    return LayerRef("sha256:b", "sha256:d", "sha256:c", 1, media_type)


GZIP, ZSTD = layer("gzip"), layer("zstd")


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})


def test_zstd_takes_as_many_places_as_there_are_cpus_and_others_take_all():
    workers = Workers()
    assert [workers.take_now(ZSTD) for _ in range(3)] == [True] * 2 + [False]
    assert [workers.take_now(GZIP) for _ in range(3)] == [True] * 2 + [False]
    workers.give_back(GZIP)
    assert not workers.take_now(ZSTD)
    assert workers.take_now(GZIP)
    workers.give_back(ZSTD)
    assert workers.take_now(ZSTD)


def test_a_configured_number_is_for_layers_of_every_kind():
    workers = Workers(3)
    assert [workers.take_now(ZSTD) for _ in range(4)] == [True] * 3 + [False]


def test_who_waits_gets_the_place_that_is_given_back():
    async def main():
        workers = Workers(1)
        entered, leave = trio.Event(), trio.Event()

        async def second():
            async with workers.place(ZSTD):
                entered.set()
                await leave.wait()

        async with trio.open_nursery() as nursery:
            async with workers.place(ZSTD):
                nursery.start_soon(second)
                await trio.testing.wait_all_tasks_blocked()
                assert not entered.is_set()
            await entered.wait()
            assert not workers.take_now(GZIP)
            leave.set()
        assert workers.take_now(GZIP)

    trio.run(main)


def test_who_is_cancelled_while_it_waits_has_taken_nothing():
    async def main():
        workers = Workers(1)

        async def wait():
            async with workers.place(ZSTD):
                raise AssertionError("there was no place")

        async with workers.place(GZIP), trio.open_nursery() as nursery:
            nursery.start_soon(wait)  # has its place among those in zstd by now
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        assert workers.take_now(ZSTD)

    trio.run(main)
