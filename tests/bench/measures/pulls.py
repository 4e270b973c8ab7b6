"""PullImage with unpacking into an empty store on a file system of its own, and of a present image."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noded.images.unpack.compression import LayerStream
from noded.images.unpack.limits import UnpackLimits
from tests.bench.account import pss_bytes
from tests.bench.bench import Bench, Factory, fresh_filesystem
from tests.bench.images import large_layers
from tests.bench.results import rotated
from tests.bench.systems import System
from tests.bench.timing import timed
from tests.support.cri_client import Cri
from tests.support.images import Image, build, sha256

_FORMS = ((8, "gzip", 6), (8, "zstd", 3), (1, "gzip", 6), (1, "zstd", 3))
_SAMPLE_SECONDS = 0.1
_MIB = 1 << 20


def run(bench: Bench) -> None:
    counts = bench.counts
    size = counts.pull_bytes * 4 + (1 << 30)
    for layers, compression, level in _FORMS:
        image = build(
            large_layers(layers, counts.pull_entries, counts.pull_bytes), compression=compression, level=level
        )
        reference = bench.registry.push(image, f"bench/{compression}{layers}", "1")
        case = _case(layers, compression)
        _decode(bench, image, case)
        del image
        for number in range(counts.pull_rounds):
            for name, factory in rotated(bench.factories.items(), number):
                with fresh_filesystem(bench.directory, size) as directory:
                    _pull(bench, name, factory, directory, reference, case)
    _copy(bench, size)


def _case(layers: int, compression: str) -> str:
    return f"{layers} {compression} layer{'s' if layers > 1 else ''}"


def _pull(bench: Bench, name: str, factory: Factory, directory: Path, reference: str, case: str) -> None:
    with bench.running(factory, directory) as system, Cri(system.address) as cri:
        assert system.account is not None
        cri.images()
        idle = _memory(system)
        with _peak(system) as peak, timed(system.account.cpu_seconds) as lap:
            cri.pull(reference, timeout=600)
        label = f"{name} runc"
        bench.results.add(f"pull, {case}", label, lap.seconds, cpu_seconds=lap.cpu_seconds, unit="s")
        bench.results.add(
            f"pull, {case}, peak PSS over idle", label, max(0, peak[0] - idle) / _MIB, unit="MiB"
        )
        with timed(system.account.cpu_seconds) as lap:
            cri.pull(reference, timeout=600)
        bench.results.add(f"pull of a present image, {case}", label, lap.seconds, cpu_seconds=lap.cpu_seconds)


def _memory(system: System) -> int:
    assert system.account is not None
    return sum(pss_bytes(pid) for pid in system.account.pids())


@contextmanager
def _peak(system: System) -> Iterator[list[int]]:
    """The highest memory seen while it is open, in a list of one."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            peak[0] = max(peak[0], _memory(system))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _decode(bench: Bench, image: Image, case: str) -> None:
    """What every pull needs beside the copy: its blobs on disk, both digests of each, decompression."""
    for _ in range(bench.counts.pull_rounds):
        with timed(time.process_time) as lap:
            for digest in image.layer_digests:
                blob = image.blobs[digest]
                assert sha256(blob) == digest
                with tempfile.TemporaryFile(dir=bench.directory) as file:
                    file.write(blob)
                    file.seek(0)
                    LayerStream(file.fileno(), UnpackLimits()).drain()
        row = f"decompression, digests and blobs of {case}"
        bench.results.add(row, "floor runc", lap.seconds, cpu_seconds=lap.cpu_seconds, unit="s")


def _copy(bench: Bench, size: int) -> None:
    """The floor: `cp -a` of the same tree, without the way over the network, decompression and digests."""
    layers = large_layers(8, bench.counts.pull_entries, bench.counts.pull_bytes)
    tree = bench.directory / "tree"
    tree.mkdir()
    for layer in layers:
        subprocess.run(["tar", "-xf", "-"], cwd=tree, input=layer, check=True)
    del layers
    for _ in range(bench.counts.pull_rounds):
        with fresh_filesystem(bench.directory, size) as directory, timed(_children) as lap:
            subprocess.run(["cp", "-a", tree, directory / "copy"], check=True)
            subprocess.run(["sync", "-f", directory], check=True)
        for count, compression, _ in _FORMS:
            row = f"pull, {_case(count, compression)}"
            bench.results.add(row, "floor runc", lap.seconds, cpu_seconds=lap.cpu_seconds, unit="s")
    shutil.rmtree(tree)


def _children() -> float:
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
