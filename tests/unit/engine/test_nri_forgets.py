"""What noded remembers for NRI plugins goes with what it is about, whether a plugin is left or not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from noded.config import NriConfig
from noded.engine.containers import Containers
from noded.engine.nri import Nri
from noded.engine.sandboxes import Sandboxes
from noded.model.records import ContainerIntent, SandboxIntent


class Plugins:
    """The service with plugins that are there, or have left, and hear all or hang."""

    def __init__(self) -> None:
        self.active = True
        self.hang = False
        self.told = 0

    async def tell(self, *_: Any, **__: Any) -> None:
        if self.hang:
            await trio.sleep_forever()
        self.told += 1

    async def stop(self, *_: Any) -> Any:
        return SimpleNamespace(by_id={}, evictions=[])


def door() -> tuple[Any, Plugins]:
    """An Nri that shows pods and containers as nothing: what is in a message is not the matter here."""

    class Shown:
        def pod(self, sandbox: Any) -> Any:
            return None

        async def container(self, container: Any) -> Any:
            return None

    nri: Any = Nri(NriConfig(), SimpleNamespace(swap_accounting=True), None, None)
    nri._objects = Shown()
    nri._service = plugins = Plugins()
    return nri, plugins


def container() -> Any:
    async def commit(**_: Any) -> None:
        pass

    return SimpleNamespace(
        id="c1",
        sandbox=SimpleNamespace(id="p1"),
        made=True,
        lock=trio.Lock(),
        commit=commit,
        tell_deleted=lambda: None,
        record=SimpleNamespace(
            key="key", intent=ContainerIntent.REMOVING, image_id="", volume_images=()
        ),
    )  # fmt: skip


def test_the_end_of_a_container_is_forgotten_after_the_plugins_have_left() -> None:
    nri, plugins = door()
    gone = container()
    world = SimpleNamespace(
        _nri=nri,
        _holds=lambda one: True,
        _ladder=SimpleNamespace(rungs=()),
        _drop=lambda one: None,
    )

    async def main() -> None:
        await nri.stopped(gone)
        assert nri._stops
        plugins.active = False
        await Containers._take_down(world, gone)

    trio.run(main)
    assert not nri._stops
    assert plugins.told == 0


def test_the_end_of_a_pod_is_forgotten_after_the_plugins_have_left() -> None:
    nri, plugins = door()
    pod: Any = SimpleNamespace(
        id="p1", stage="", lock=trio.Lock(), record=SimpleNamespace(intent=SandboxIntent.STOPPED)
    )

    async def nothing(*_: Any) -> None:
        pass

    world = SimpleNamespace(
        _nri=nri,
        _registry=SimpleNamespace(holds=lambda one: True),
        _containers=SimpleNamespace(remove_all=nothing),
        _stop=nothing,
        _forget=nothing,
    )

    async def main() -> None:
        await nri.stop_pod(pod)
        assert nri._pods_stopped
        plugins.active = False
        await Sandboxes._remove(world, pod)

    trio.run(main)
    assert not nri._pods_stopped


def test_a_creation_that_failed_does_not_wait_for_plugins_for_ever() -> None:
    nri, plugins = door()
    plugins.hang = True

    async def main() -> None:
        with trio.CancelScope() as cancelled:
            cancelled.cancel()
            await nri.given_up(container())
        assert 1 < trio.current_time() - began < 60

    clock = trio.testing.MockClock(autojump_threshold=0)
    began = clock.current_time()
    trio.run(main, clock=clock)
