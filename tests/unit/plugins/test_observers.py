"""Events in the plugins' words, and a plugin that does not keep up."""

from __future__ import annotations

import trio
import trio.testing

from noded.engine.events import EventKind
from noded.engine.observers import Observers, event_of
from noded.model.container import ContainerConfig
from noded.model.pod import PodConfig, SandboxKey
from noded.model.states import ContainerState, SandboxState
from noded.model.views import ContainerView, SandboxView

SANDBOX = SandboxView(
    id="s1",
    config=PodConfig(SandboxKey("default", "web", "uid", 0)),
    handler="runc",
    state=SandboxState.READY,
    created_at_ns=1,
)
CONTAINER = ContainerView(
    id="c1",
    sandbox_id="s1",
    config=ContainerConfig("main", 0, image="i"),
    state=ContainerState.EXITED,
    created_at_ns=1,
    image_id="i",
    log_path="",
    exit_code=137,
    reason="OOMKilled",
    message="too much",
)


class FakeHooks:
    """Two observers, of which one never returns from its first event."""

    def __init__(self):
        self.seen = []

    def observers(self):
        return ["quick", "slow"]

    async def observe(self, event, name=""):
        if name == "slow":
            await trio.sleep_forever()
        self.seen.append(event)


def test_an_exit_tells_its_code_and_reason():
    event = event_of(EventKind.STOPPED, SANDBOX, CONTAINER, 7)
    assert (event.kind, event.at_ns, event.sandbox_id, event.container_id) == (
        "container_exited",
        7,
        "s1",
        "c1",
    )
    assert (event.exit_code, event.detail) == (137, "OOMKilled: too much")


def test_a_sandbox_is_told_of_once_when_it_starts():
    assert event_of(EventKind.CREATED, SANDBOX, None, 1) is None
    assert event_of(EventKind.STARTED, SANDBOX, None, 1).kind == "sandbox_started"


def test_every_kind_of_a_container_has_a_name_and_only_an_exit_a_code():
    events = [event_of(kind, SANDBOX, CONTAINER, 1) for kind in EventKind]
    assert len({event.kind for event in events}) == len(EventKind)
    assert [event.exit_code is not None for event in events] == [
        kind is EventKind.STOPPED for kind in EventKind
    ]


def test_a_slow_plugin_is_late_for_itself_only_and_memory_stays_bounded():
    hooks = FakeHooks()

    async def main():
        observers = Observers(hooks)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observers.run)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(3000):
                observers.tell(EventKind.STARTED, SANDBOX, None)
                if number % 100 == 0:
                    await trio.testing.wait_all_tasks_blocked()
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    assert len(hooks.seen) == 3000


def test_a_blocked_call_is_an_event_of_its_own():
    hooks = FakeHooks()

    async def main():
        observers = Observers(hooks)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(observers.run)
            observers.blocked("s1", "c1", "mount")
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    trio.run(main)
    [event] = hooks.seen
    assert (event.kind, event.sandbox_id, event.container_id, event.detail, event.exit_code) == (
        "container_call_blocked", "s1", "c1", "mount", None,
    )  # fmt: skip
