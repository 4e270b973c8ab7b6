"""A container that cannot be taken down is a debt: told, listed, retried by itself until it is gone."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

from noded.engine.claims import Claim
from noded.engine.container import Container
from noded.engine.containers import Containers
from noded.engine.debts import Debts
from noded.engine.events import Events
from noded.engine.ladder import Rung
from noded.engine.operations import Operation, Operations
from noded.engine.registry import Registry
from noded.engine.sandboxes import Sandboxes
from noded.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable
from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent
from noded.model.pod import SandboxKey
from noded.model.records import ContainerRecord
from noded.model.runtime import Exit
from noded.model.states import ContainerState

KEY = ContainerKey("p1", "main", 0)


class Rows:
    """The database; `broken` = its disk is."""

    def __init__(self) -> None:
        self.records: dict[str, ContainerRecord] = {}
        self.broken = False

    async def update(self, record: ContainerRecord) -> None:
        if self.broken:
            raise Unavailable("check the file system of the database")
        self.records[record.id] = record


class World(Containers):
    """Containers of one pod, whose ladder fails at its rootfs when told to."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.database = Rows()
        self.fault: Exception | None = None
        self.stop_fault: Exception | None = None
        self.up_fault: Exception | None = None
        self.held: trio.Event | None = None
        self.tries: list[float] = []
        registry = Registry()
        self.debts = Debts(nursery, registry, 0.0)
        self.pod: Any = SimpleNamespace(
            id="p1", view=None, ready=True, subject=None,
            record=SimpleNamespace(handler="runc", key=SandboxKey("default", "web", "u1", 0)),
        )  # fmt: skip

        async def nothing(*_: object) -> None:
            pass

        async def stop(container: Container, timeout_seconds: float) -> None:
            if self.stop_fault is not None:
                raise self.stop_fault

        async def up(container: Container) -> None:
            if self.up_fault is not None:
                raise self.up_fault

        async def delete(container: Container) -> None:
            self.database.records.pop(container.id, None)

        async def insert(container: Container) -> None:
            self.database.records[container.id] = container.record

        async def ready(container: Container) -> None:
            await container.commit(intent=ContainerIntent.CREATED)

        rungs = (
            Rung("record", insert, delete),
            Rung("rootfs", up, self._down),
            Rung("ready", ready, nothing),
        )
        nothings: Any = SimpleNamespace(
            enabled=False, removed=nothing, get=lambda _: "image", create_timeout_seconds=lambda _: 100.0
        )
        super().__init__(
            unclaimed_seconds=1.0, layout=nothings, rows=self.database, registry=registry,
            operations=Operations(nursery), handlers=nothings, images=nothings, requests=nothings,
            ladder=SimpleNamespace(rungs=rungs), starts=nothings, stops=SimpleNamespace(stop=stop),
            nri=nothings, notifier=nothings, nursery=nursery, events=Events(lambda _: []),
            debts=self.debts,
        )  # fmt: skip

    async def _down(self, container: Container) -> None:
        self.tries.append(trio.current_time())
        if self.held is not None:
            await self.held.wait()
        if self.fault is not None:
            raise self.fault

    def _new(self, request: Any) -> Container:
        record = ContainerRecord(
            "c1", KEY, b"", ContainerConfig("main", 0, "busybox"), 1, "boot",
            ContainerIntent.CREATING, "sha256:1",
        )  # fmt: skip
        made = Container(self.database, record, self.pod, Path("/bundle"), self._events)
        made.claim = Claim(named=False)
        return made

    def add(self, intent: ContainerIntent = ContainerIntent.STARTED) -> Container:
        made = self._new(None)
        made.claim = Claim()
        exited = Exit(0, 1) if intent is not ContainerIntent.CREATED else None
        object.__setattr__(made.record, "intent", intent)
        object.__setattr__(made.record, "exited", exited)
        made.view = made._view()
        self._registry.add_container(made)
        return made

    async def create_one(self) -> Container:
        request: Any = SimpleNamespace(
            sandbox=self.pod, key=KEY, config=ContainerConfig("main", 0, "busybox")
        )
        return await self._create(request, Operation("creating"))


def run(scenario: Callable[[World], Awaitable[None]]) -> None:
    """In virtual time; what is still retried at the end is given up."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await scenario(World(nursery))
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_removal_that_fails_is_told_and_listed_and_ends_by_itself() -> None:
    async def scenario(world: World) -> None:
        container = world.add()
        world.fault = Unavailable("the mount is busy")
        asked_ns = time.time_ns()
        with pytest.raises(Unavailable, match="busy"):
            await world.remove("c1")
        await trio.testing.wait_all_tasks_blocked()
        (debt,) = world.debts.listed()
        assert (debt.id, debt.kind, debt.tries, debt.last_error) == (
            "c1", "undo rootfs", 1, "the mount is busy",
        )  # fmt: skip
        assert debt.subject == "container main#0 of default/web/u1#0"
        assert asked_ns <= debt.since_ns <= time.time_ns() < debt.next_try_ns
        assert world.database.records["c1"].owed == container.record.owed
        assert [view.id for view in world.views()] == ["c1"]
        await trio.sleep(10)
        (later,) = world.debts.listed()
        assert later.since_ns == debt.since_ns
        assert later.tries > debt.tries
        world.fault = None
        await trio.sleep(100)
        assert world.debts.listed() == []
        assert world.views() == []
        assert world.database.records == {}

    run(scenario)


def test_the_tries_become_rarer_but_never_stop() -> None:
    async def scenario(world: World) -> None:
        world.add()
        world.fault = Unavailable("the mount is busy")
        with pytest.raises(Unavailable):
            await world.remove("c1")
        await trio.sleep(1000)
        gaps = [after - before for before, after in zip(world.tries, world.tries[1:], strict=False)]
        wanted = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0] + [60.0] * (len(gaps) - 6)
        assert len(gaps) > 15
        assert all(0.8 * mean <= gap <= 1.2 * mean for gap, mean in zip(gaps, wanted, strict=True)), gaps

    run(scenario)


def test_a_client_that_asks_again_joins_the_retry_or_is_one() -> None:
    async def scenario(world: World) -> None:
        world.add()
        world.fault = Unavailable("the mount is busy")
        with pytest.raises(Unavailable):
            await world.remove("c1")
        world.held = trio.Event()
        await trio.sleep(2)  # the retry is at the rung
        assert len(world.tries) == 2
        assert world.debts.listed()[0].next_try_ns == 0
        async with trio.open_nursery() as clients:
            clients.start_soon(world.remove, "c1")
            await trio.testing.wait_all_tasks_blocked()
            world.fault = None
            world.held.set()
        assert len(world.tries) == 2
        assert world.debts.listed() == []
        await world.remove("c1")  # gone is success

    run(scenario)


def test_a_rollback_that_fails_is_owed_with_its_own_error_not_that_of_the_create() -> None:
    async def scenario(world: World) -> None:
        world.up_fault, world.fault = Unavailable("no such image"), Unavailable("the mount is busy")
        with pytest.raises(Unavailable, match="no such image"):
            await world.create_one()
        (debt,) = world.debts.listed()
        assert (debt.kind, debt.last_error) == ("undo rootfs", "the mount is busy")
        assert world.database.records["c1"].intent is ContainerIntent.REMOVING
        assert [view.state for view in world.views()] == [ContainerState.EXITED]
        world.fault = None
        await trio.sleep(10)
        assert (world.debts.listed(), world.views(), world.database.records) == ([], [], {})

    run(scenario)


def test_a_container_that_cannot_be_killed_is_owed_and_stays_what_it_is() -> None:
    async def scenario(world: World) -> None:
        container = world.add(ContainerIntent.CREATED)
        world.stop_fault = Unavailable("process 7 does not die")
        with pytest.raises(Unavailable, match="does not die"):
            await world.remove("c1")
        assert [debt.kind for debt in world.debts.listed()] == ["stopping it"]
        assert container.record.intent is ContainerIntent.CREATED
        world.stop_fault = None
        made = await world.create_one()  # asked for again: nobody gets what is to go
        assert made is not container
        await trio.sleep(100)  # the retries of the old one are over, and did not take the new one
        assert [view.id for view in world.views()] == ["c1"]
        assert world._registry.container("c1") is made

    run(scenario)


def test_a_removal_that_its_client_gives_up_half_way_goes_on_by_itself() -> None:
    async def scenario(world: World) -> None:
        world.add()
        world.held = trio.Event()

        async def client(scope: trio.CancelScope) -> None:
            with scope:
                await world.remove("c1")

        async with trio.open_nursery() as clients:
            scope = trio.CancelScope()
            clients.start_soon(client, scope)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            world.held.set()
        assert scope.cancelled_caught
        assert world.database.records["c1"].intent is ContainerIntent.REMOVING
        await trio.sleep(10)
        assert world.database.records == {}

    run(scenario)


def test_what_the_database_cannot_note_is_retried_all_the_same() -> None:
    async def scenario(world: World) -> None:
        world.add(ContainerIntent.REMOVING)
        world.fault, world.database.broken = Unavailable("the mount is busy"), True
        with pytest.raises(Unavailable, match="busy"):
            await world.remove("c1")
        world.database.broken = False
        await trio.sleep(2)
        assert [debt.tries for debt in world.debts.listed()] == [1]
        world.fault = None
        await trio.sleep(10)
        assert world.views() == []

    run(scenario)


def test_no_operator_can_give_up_the_removal_of_a_container() -> None:
    async def scenario(world: World) -> None:
        container = world.add()
        world.fault = Unavailable("the mount is busy")
        with pytest.raises(Unavailable):
            await world.remove("c1")
        pods: Any = SimpleNamespace(_debts=world.debts)
        with pytest.raises(FailedPrecondition, match="cannot be given up"):
            await Sandboxes.forgive(pods, "c1")
        with pytest.raises(NotFound):
            await Sandboxes.forgive(pods, "c2")
        with pytest.raises(NotFound):
            await Sandboxes.forgive(pods, "")
        assert world.debts.debtor("c") is container
        other = world._new(None)
        object.__setattr__(other.record, "id", "c9")
        object.__setattr__(other.record, "key", ContainerKey("p1", "other", 0))
        object.__setattr__(other.record, "owed", container.record.owed)
        world._registry.add_container(other)
        with pytest.raises(InvalidArgument, match="2 debts"):
            world.debts.debtor("c")

    run(scenario)
