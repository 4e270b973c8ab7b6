"""Does steps to a real noded as kubelet would, and checks the node against the model after each."""

from __future__ import annotations

import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.crash.programs import CNI_VERB, Stand
from tests.crash.small_disk import DaemonOnSmallDisk
from tests.crash.world import World
from tests.soak.breakage import SECOND_IMAGE, Breakage
from tests.soak.checks import Checks
from tests.soak.containers import Containers
from tests.soak.interruptions import Interruptions
from tests.soak.model import NodeModel
from tests.soak.node import Node
from tests.soak.pods import Pods
from tests.soak.steps import FAULTS, Step
from tests.support import images
from tests.support.cni import plugin_path

DISK_MEGABYTES = 96


def settings() -> dict[str, Any]:
    """Budgets that a soak can wait for."""
    return {
        "network": {"add_timeout_seconds": 2.0, "del_timeout_seconds": 2.0},
        "drain_seconds": 2.0,
    }


@contextmanager
def open_player(directory: Path, layout: Path) -> Iterator[Player]:
    """A daemon on a small disk, with `layout` loaded, and the one who plays with it."""
    daemon = DaemonOnSmallDisk(directory, DISK_MEGABYTES, settings=settings())
    with World(daemon, layout) as world:
        stand = Stand(daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
        second = images.build([images.tar([images.Entry("data", b"second")])])
        layout_of_second = images.write_layout(second, directory / "second", SECOND_IMAGE)
        player = Player(Node(world, stand, layout_of_second))
        try:
            yield player
        finally:
            daemon.disk.free()
            stand.heal()
            stand.close()


class Player:
    """Plays episodes: each begins and ends with an empty node."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.world = node.world
        self.pods = Pods(node)
        self.containers = Containers(node, self.pods)
        self.interruptions = Interruptions(node, self.pods, self.containers, self.do)
        self.breakage = Breakage(node)
        self.checks = Checks(node)
        self.done: Counter[str] = Counter()
        self.reached = 0  # number of the step that is being done; after the last, that of taking all down
        self.episodes = 0

    def doer(self, kind: str) -> Callable[[Step], None]:
        """What does the steps of a kind."""
        parts = (self.pods, self.containers, self.interruptions, self.breakage)
        doer: Callable[[Step], None] = next(getattr(part, kind) for part in parts if hasattr(part, kind))
        return doer

    @property
    def faults(self) -> int:
        """How many steps so far were faults."""
        return sum(count for kind, count in self.done.items() if kind in FAULTS)

    def play(self, steps: list[Step], pace: float = 0.0) -> None:
        """Do all steps, then take everything down: the host must be as it was. Raises AssertionError.

        Args:
            pace: steps per second, at most; 0 = as fast as it goes.
        """
        self.node.model = NodeModel.empty()
        self._warm_up()
        before = self.node.world.oracle.take()
        for number, step in enumerate(steps):
            self.reached = number
            due = time.monotonic() + (1 / pace if pace else 0.0)
            try:
                self.do(step)
                self.done[step.kind] += 1
                self.checks.check()
            except AssertionError as error:
                raise AssertionError(f"at step {number}, {step}: {error}") from error
            select.select([], [], [], max(0.0, due - time.monotonic()))
        self._leave()
        self._warm_up()
        self.node.world.assert_unchanged(before)
        self.checks.check_log()
        self.episodes += 1

    def _warm_up(self) -> None:
        """The helper that unpacks layers is started by the first layer, and then stays."""
        self.breakage.load_image(Step("load_image"))
        self.breakage.remove_image(Step("remove_image"))

    def _leave(self) -> None:
        """Heal what is broken, remove what is there, as kubelet does when a node is drained."""
        self.breakage.heal_cni(Step("heal_cni"))
        self.breakage.free_disk(Step("free_disk"))
        for pod in self.node.model.pods:
            self.pods.remove_pod(Step("remove_pod", pod.number))
        self.breakage.remove_image(Step("remove_image"))
        self.checks.check()
        self.node.until(lambda: not self.node.world.cri.containers(), "no container is left")
        self.node.until(lambda: not self.node.world.cri.pods(), "no pod is left")
        assert self.node.world.cri.containers() == []

    def do(self, step: Step) -> None:
        self.doer(step.kind)(step)


def resident_kilobytes(pid: int) -> int:
    """VmRSS of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
