"""What clients see of pods and containers on their way down depends on whether they were told of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from noded.engine.claims import Claim
from noded.engine.container import Container
from noded.engine.events import Events
from noded.engine.sandbox import PodSandbox
from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent, SandboxIntent
from noded.model.pod import PodConfig, SandboxKey
from noded.model.records import ContainerRecord, SandboxRecord
from noded.model.runtime import Exit

COMMON: dict[str, Any] = {"request": b"", "created_at_ns": 1, "boot_id": "boot"}


class Rows:
    async def update(self, record: object) -> None:
        pass


def sandbox() -> PodSandbox:
    key = SandboxKey("default", "web", "u1", 0)
    record = SandboxRecord(
        "p1", key, "runc", config=PodConfig(key), intent=SandboxIntent.CREATING, **COMMON
    )  # fmt: skip
    return fresh(PodSandbox(Rows(), record, Events(lambda _: [])))


def container() -> Container:
    record = ContainerRecord(
        "c1",
        ContainerKey("p1", "main", 0),
        config=ContainerConfig("main", 0, "busybox"),
        intent=ContainerIntent.CREATING,
        image_id="sha256:1",
        **COMMON,
    )
    pod: Any = SimpleNamespace(id="p1", view=None, record=SimpleNamespace(handler="runc"))
    return fresh(Container(Rows(), record, pod, Path("/bundle"), Events(lambda _: [])))


def fresh(one: Any) -> Any:
    one.claim = Claim(named=False)
    return one


async def make(one: Any) -> None:
    assert not one.visible
    made = SandboxIntent.READY if isinstance(one, PodSandbox) else ContainerIntent.CREATED
    await one.commit(intent=made)
    assert one.visible


async def take_down(one: Any) -> None:
    down = SandboxIntent.STOPPING if isinstance(one, PodSandbox) else ContainerIntent.REMOVING
    await one.commit(intent=down)


@pytest.mark.parametrize("kind", [sandbox, container])
def test_what_no_client_was_told_of_is_not_seen_going(kind):
    async def main() -> None:
        one = kind()
        await make(one)
        await take_down(one)
        assert not one.visible
        assert one.made

    trio.run(main)


@pytest.mark.parametrize("kind", [sandbox, container])
@pytest.mark.parametrize("told", ["named", "answered"])
def test_what_a_client_knows_is_seen_until_it_is_gone(kind, told):
    async def main() -> None:
        one = kind()
        await make(one)
        setattr(one.claim, told, True)
        await take_down(one)
        assert one.visible

    trio.run(main)


def test_an_unclaimed_container_that_is_killed_is_not_seen_as_exited():
    async def main() -> None:
        one = container()
        await make(one)
        await one.end(Exit(137, 2))
        assert not one.visible

    trio.run(main)
