"""SIGKILL at random moments of loading and removing images: never a bad image, never a leaked byte."""

from __future__ import annotations

import os
import random
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import REPOSITORY
from tests.support.layer_cases import Store, directory, disk_use, file, make_image, scan, tar, with_store

pytestmark = pytest.mark.root

WORKER = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
from tests.support.layer_cases import with_store
from test_kill_store import make_tars

async def work(store):
    await store.library.collect()
    print("ready", flush=True)
    number = 0
    while True:
        number += 1
        for which in (0, 1):
            await store.add(make_tars(which), f"localhost/i:{which}")
        await store.library.remove(f"localhost/i:{number % 2}")

with_store(Path(sys.argv[2]), work)
"""


def make_tars(which: int) -> list[bytes]:
    """Two images that share their base layer."""
    base = [file(f"base/{number}", bytes([number]) * 3000 * number) for number in range(60)]
    own = [file(f"own/{number}", bytes([which, number]) * 1000 * number) for number in range(60)]
    return [tar(directory("base", mode=0o711, mtime=5), *base), tar(*own, file("base/more", b"m"))]


def test_after_a_kill_the_store_has_whole_images_and_nothing_else(
    tmp_path: Path, rng: random.Random, counts: Callable[[int, int], int]
) -> None:
    expected: dict[str, object] = {}
    seen = 0

    async def reference(store: Store) -> None:
        for which in (0, 1):
            image = await store.add(make_tars(which), f"localhost/i:{which}")
            for layer in image.layers:
                expected[layer.chain_id] = scan(store.layers.tree(layer.chain_id))

    async def check(store: Store) -> None:
        nonlocal seen
        await store.library.collect()
        images = store.library.list()
        seen += len(images)
        for image in images:
            for layer in image.layers:
                found = scan(store.layers.tree(layer.chain_id))
                for tree in (found, expected[layer.chain_id]):
                    # Made when it was unpacked: no entry and no lower layer tells a time.
                    for path in (b".", b"own"):
                        if path in tree:
                            tree[path] = (*tree[path][:4], 0, *tree[path][5:])
                assert found == expected[layer.chain_id]
                store.content.verify(layer.blob_digest)
        info = await store.library.fs_info()
        always_there = 8 * 4096  # empty directories
        found_bytes = disk_use(store.layout.content, store.layout.layers) - always_there
        assert abs(found_bytes - info.image.used_bytes) <= max(found_bytes // 100, 8192)

    with_store(tmp_path / "reference", reference)
    for _ in range(counts(12, 200)):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, f"{Path(__file__).parent}:{REPOSITORY}", str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
        )
        pidfd = os.pidfd_open(worker.pid)
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
            ended = select.select([pidfd], [], [], rng.uniform(0, 0.5))[0]
            assert not ended, "the worker failed by itself"
        finally:
            os.close(pidfd)
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
        with_store(tmp_path / "store", check)
    assert seen, "no round had an image to look at"
    assert make_image(make_tars(0))[0].layers[0] == make_image(make_tars(1))[0].layers[0]
