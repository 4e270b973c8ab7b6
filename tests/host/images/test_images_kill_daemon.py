"""SIGKILL of the daemon at random moments of pulls and removals: no bad image, no leaked byte."""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from layer_cases import scan
from test_images_kill import disk_use

from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.images import Entry, Image, build, tar
from tests.support.processes import read_until
from tests.support.registry import Registry

pytestmark = pytest.mark.root

ORDERLY = "image store in order"  # logged by each start, when it has cleared what the last run left
EMPTY_BYTES = 8 * 4096  # directories that are always there


def make_images() -> dict[str, Image]:
    """Two images on one base: many small files, so that deleting takes time, and some megabytes."""
    noise = random.Random(1)

    def layer(name: str) -> bytes:
        small = [Entry(f"{name}/{number}", noise.randbytes(700)) for number in range(150)]
        return tar(
            [Entry("./", mode=0o755), Entry(f"{name}/"), *small, Entry(f"{name}/b", noise.randbytes(1 << 20))]
        )

    base = layer("base")
    return {
        tag: build([base, layer(f"{tag}-1"), layer(f"{tag}-2")], labels={"tag": tag})
        for tag in ("one", "two")
    }


class Node:
    """A daemon, the images that it may have, and what is right for them."""

    def __init__(self, daemon: NodedDaemon, registry: Registry) -> None:
        self.daemon = daemon
        self.starts = 0
        self.images = {registry.push(image, "kill/image", tag): image for tag, image in make_images().items()}
        self.trees: dict[str, object] = {}

    def start(self) -> None:
        self.daemon.start()
        self.starts += 1
        follow = subprocess.Popen(["tail", "-n", "+1", "-F", self.daemon.log], stdout=subprocess.PIPE)
        lines = itertools.count(1)
        try:
            assert follow.stdout is not None
            read_until(follow.stdout, follow, lambda line: ORDERLY in line and next(lines) == self.starts, 30)
        finally:
            follow.kill()
            follow.communicate()

    def learn(self, cri: Cri) -> tuple[float, float]:
        """What the trees look like; returns how long pulling and removing an image takes, in seconds."""
        for name in self.images:
            cri.pull(name)
        self.trees = {home.name: scan(home / "fs") for home in self.layers()}
        assert len(self.trees) == 5
        (first, *_), began = self.images, time.monotonic()
        remove(cri, first)
        removed = time.monotonic()
        cri.pull(first)
        return time.monotonic() - removed, removed - began

    def layers(self) -> list[Path]:
        return [path for path in (self.daemon.root / "layers").iterdir() if path.name != ".staging"]

    def check(self, cri: Cri) -> int:
        """Every image is whole and nothing else is there; returns how many there are."""
        root = self.daemon.root
        known = {image.id: image for image in self.images.values()}
        listed = [known[one.id] for one in cri.images()]
        deep = cri.admin.VerifyImages(cri.admin_pb.VerifyImagesRequest(deep=True), timeout=60)
        assert [(one.id, list(one.problems)) for one in deep.images] == [(one.id, []) for one in listed]
        trees = {home.name: scan(home / "fs") for home in self.layers()}
        assert len(trees) == (0, 3, 5)[len(listed)]
        for name, tree in trees.items():
            assert tree == self.trees[name]
        blobs = {f"sha256:{path.name}" for path in (root / "content/blobs/sha256").iterdir()}
        assert blobs == {digest for image in listed for digest in (*image.blobs, image.digest)}
        assert [*(root / "content/ingest").iterdir(), *(root / "layers/.staging").iterdir()] == []
        (info,) = cri.image.ImageFsInfo(cri.pb.ImageFsInfoRequest(), timeout=10).image_filesystems
        found = disk_use(root / "content", root / "layers") - EMPTY_BYTES
        assert abs(found - info.used_bytes.value) <= max(found // 100, 16384)
        return len(listed)


def remove(cri: Cri, name: str) -> None:
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=name)), timeout=30)


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Iterator[Node]:
    daemon = NodedDaemon(tmp_path, insecure=[registry.host])
    daemon.prepare()
    try:
        node = Node(daemon, registry)
        node.start()
        yield node
    finally:
        daemon.close()


def test_after_a_kill_in_a_pull_or_a_removal_the_store_is_right(
    node: Node, rng: random.Random, counts: Callable[[int, int], int]
) -> None:
    seen = {"whole": 0, "unfinished": 0}
    with node.daemon.client() as cri:
        pull_seconds, remove_seconds = node.learn(cri)
    for number in range(counts(6, 200)):
        name = rng.choice(list(node.images))
        with node.daemon.client() as cri:
            if number % 2:
                cri.pull(name)
                work, seconds = (lambda cri=cri, name=name: remove(cri, name)), remove_seconds
            else:
                remove(cri, name)
                work, seconds = (lambda cri=cri, name=name: cri.pull(name)), pull_seconds
            moment = rng.uniform(0, seconds * 1.1)
            finished = kill_during(node.daemon, work, moment)
        seen["whole" if finished else "unfinished"] += 1
        node.start()
        with node.daemon.client() as cri:
            try:
                node.check(cri)
            except AssertionError as error:
                error.add_note(f"round {number}: {'removal' if number % 2 else 'pull'}, {moment:.3f} s")
                raise
    print(f"calls ended by the kill, or before it: {seen}")
    assert seen["unfinished"], "no kill hit anything"


def kill_during(daemon: NodedDaemon, work: Callable[[], Any], moment: float) -> bool:
    """Kill the daemon so many seconds after `work` has begun; returns whether it had ended."""
    results: list[BaseException | None] = []

    def call() -> None:
        try:
            work()
            results.append(None)
        except grpc.RpcError as error:
            results.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    threading.Event().wait(moment)  # not for something to happen: this is the random moment
    daemon.kill()
    thread.join()
    (error,) = results
    # The kill is the only thing that may have gone wrong.
    assert error is None or error.code() is grpc.StatusCode.UNAVAILABLE, error
    return error is None
