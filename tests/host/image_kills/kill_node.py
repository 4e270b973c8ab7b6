"""SIGKILL of the daemon at random moments of its work on images: no bad image, no leaked byte.

The work is a pull, a removal with its garbage collection, or a repair that downloads what was damaged.
The images: one of gzip layers, one of zstd layers on the same base, one whose layers are encrypted.
"""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric import ec

from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.encryption import encrypt
from tests.support.images import Entry, Image, build, tar
from tests.support.layer_cases import disk_use, scan
from tests.support.processes import wait_for_lines
from tests.support.registry import Registry

ORDERLY = "image store in order"  # logged by each start, when it has cleared what the last run left
EMPTY_BYTES = 8 * 4096  # directories that are always there
KEY = ec.generate_private_key(ec.SECP256R1())


def make_images() -> dict[str, Image]:
    """Many small files, so that deleting takes time, and some megabytes."""
    noise = random.Random(1)

    def layer(name: str) -> bytes:
        small = [Entry(f"{name}/{number}", noise.randbytes(700)) for number in range(150)]
        return tar(
            [Entry("./", mode=0o755), Entry(f"{name}/"), *small, Entry(f"{name}/b", noise.randbytes(1 << 20))]
        )

    base = layer("base")

    def image(tag: str, compression: str) -> Image:
        layers = [base, layer(f"{tag}-1"), layer(f"{tag}-2")]
        return build(layers, labels={"tag": tag}, compression=compression)

    return {
        "gzip": image("gzip", "gzip"),
        "zstd": image("zstd", "zstd"),
        "encrypted": encrypt(image("encrypted", "gzip"), [[KEY]]),
    }


def chain(image: Image) -> list[str]:
    """Chain IDs of an image's layers, without their algorithm."""
    found: list[str] = []
    for diff_id in json.loads(image.config)["rootfs"]["diff_ids"]:
        text = f"sha256:{found[-1]} {diff_id}" if found else diff_id
        found.append(hashlib.sha256(text.encode()).hexdigest() if found else diff_id.partition(":")[2])
    return found


class Node:
    """A daemon, the images that it may have, and what is right for them."""

    def __init__(self, daemon: NodedDaemon, registry: Registry) -> None:
        self.daemon = daemon
        self.starts = 0
        self.images = {registry.push(image, "kill/image", tag): image for tag, image in make_images().items()}
        self.trees: dict[str, object] = {}
        self.seconds: dict[str, float] = {}  # how long each kind of work takes

    def start(self) -> None:
        self.daemon.start()
        self.starts += 1
        wait_for_lines(self.daemon.log, ORDERLY, self.starts)

    def learn(self, cri: Cri, rng: random.Random) -> None:
        """What the trees look like, and how long things take."""
        for name in self.images:
            cri.pull(name)
        self.trees = {home.name: scan(home / "fs") for home in self.layers()}
        assert self.trees.keys() == {one for image in self.images.values() for one in chain(image)}
        name = next(iter(self.images))
        self.damage(name, rng)
        for kind, work in WORK.items():
            began = time.monotonic()
            work(cri, name)
            self.seconds[kind] = time.monotonic() - began
        self.check(cri)

    def layers(self) -> list[Path]:
        return [path for path in (self.daemon.root / "layers").iterdir() if path.name != ".staging"]

    def damage(self, name: str, rng: random.Random) -> None:
        """Damage some blobs of an image, and some files of its own layers."""
        image = self.images[name]
        for digest in rng.sample(image.layer_digests, rng.randint(1, 3)):
            blob = self.blob(digest)
            if blob.exists():
                blob.write_bytes(bytes(blob.stat().st_size))
        for chain_id in rng.sample(chain(image)[1:], rng.randint(0, 2)):
            tree = self.daemon.root / "layers" / chain_id / "fs"
            for path in tree.glob("*/1*"):
                path.unlink()

    def blob(self, digest: str) -> Path:
        return self.daemon.root / "content/blobs/sha256" / digest.partition(":")[2]

    def check(self, cri: Cri) -> None:
        """Every image is whole and nothing else is there."""
        root = self.daemon.root
        known = {image.id: image for image in self.images.values()}
        listed = [known[one.id] for one in cri.images()]
        assert {one: problems for one, problems, _ in verify(cri)} == {one.id: [] for one in listed}
        trees = {home.name: scan(home / "fs") for home in self.layers()}
        assert trees.keys() == {one for image in listed for one in chain(image)}
        for name, tree in trees.items():
            assert tree == self.trees[name]
        blobs = {f"sha256:{path.name}" for path in (root / "content/blobs/sha256").iterdir()}
        assert blobs == {digest for image in listed for digest in (*image.blobs, image.digest)}
        assert [*(root / "content/ingest").iterdir(), *(root / "layers/.staging").iterdir()] == []
        (info,) = cri.image.ImageFsInfo(cri.pb.ImageFsInfoRequest(), timeout=10).image_filesystems
        found = disk_use(root / "content", root / "layers") - EMPTY_BYTES
        assert abs(found - info.used_bytes.value) <= max(found // 100, 16384)


def pull(cri: Cri, name: str) -> None:
    cri.pull(name)


def remove(cri: Cri, name: str) -> None:
    cri.image.RemoveImage(cri.pb.RemoveImageRequest(image=cri.pb.ImageSpec(image=name)), timeout=30)


def repair(cri: Cri, name: str) -> None:
    assert all(usable for _, _, usable in verify(cri))


def verify(cri: Cri) -> list[tuple[str, list[str], bool]]:
    """ID, problems and usability of each image, after what was damaged has been repaired."""
    deep = cri.admin.VerifyImages(cri.admin_pb.VerifyImagesRequest(deep=True), timeout=60)
    return [(one.id, list(one.problems), one.usable) for one in deep.images]


# In this order they leave the image there.
WORK: dict[str, Callable[[Cri, str], None]] = {"repair": repair, "removal": remove, "pull": pull}


def kill_rounds(node: Node, kind: str, rounds: int, rng: random.Random) -> None:
    """Begin one kind of work, kill the daemon at a random moment, start it, look; again and again."""
    seen = {"whole": 0, "unfinished": 0}
    for number in range(rounds):
        name = rng.choice(list(node.images))
        with node.daemon.client() as cri:
            if kind == "pull":
                remove(cri, name)
            else:
                cri.pull(name)
            if kind == "repair":
                node.damage(name, rng)
            moment = rng.uniform(0, node.seconds[kind] * 1.1)
            finished = kill_during(node.daemon, lambda cri=cri, name=name: WORK[kind](cri, name), moment)
        seen["whole" if finished else "unfinished"] += 1
        node.start()
        with node.daemon.client() as cri:
            try:
                if kind == "repair":
                    repair(cri, name)
                node.check(cri)
            except AssertionError as error:
                error.add_note(f"round {number}: {kind} of {name}, killed after {moment:.3f} s")
                raise
    print(f"calls ended by the kill, or before it: {seen}")
    # Of a few rounds all may come too late, on a machine that was slower when the work was timed.
    assert rounds < 20 or seen["unfinished"] > rounds // 4, "the kills hit next to nothing"


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
