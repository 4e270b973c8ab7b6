"""The images of the bench: small ones for pods, a large one of many small files for pulls."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import Entry, build, busybox_image, tar
from tests.support.registry import Registry

_SOURCE = Path("/usr")  # what images are made of: programs, libraries, modules, data
_LARGEST_BYTES = 8 << 20  # of one source file, so that no single one makes the image


@dataclass(frozen=True)
class Images:
    """References in the bench's registry."""

    pod: str
    sandbox: str


def push_small(registry: Registry) -> Images:
    """A container that sleeps, and the sandbox image of servers that need one."""
    pod = registry.push(busybox_image(cmd=["sleep", "1000000"]), "bench/pod", "1")
    program = shutil.which("catatonit")
    assert program is not None, "catatonit is not installed: run `make packages` as root"
    # With -P it does nothing but wait: what pause does.
    layer = tar([Entry("catatonit", Path(program).read_bytes(), 0o755)])
    sandbox = registry.push(build([layer], entrypoint=["/catatonit", "-P"], cmd=[]), "bench/pause", "1")
    return Images(pod, sandbox)


def large_layers(layers: int, entries: int, total_bytes: int) -> list[bytes]:
    """Tars with `entries` members and `total_bytes` of content altogether, the same at every run.

    The content is that of this machine's own programs: made-up bytes compress like no real layer, and
    decompression is a large part of a pull.
    """
    chance = random.Random(9)
    content = _Content()
    tars = []
    for number in range(layers):
        members: list[Entry] = []
        left = total_bytes // layers
        count = entries // layers
        for index in range(count):
            directory = f"usr/lib/layer{number}/part{index // 40}"
            if index % 40 == 0:
                members.append(Entry(f"{directory}/", mode=0o755))
                continue
            # Few large files hold most bytes, as in real images.
            size = left if index == count - 1 else min(left, int(chance.paretovariate(1.1) * 2500))
            left -= size
            mode = chance.choice((0o644, 0o755))
            members.append(Entry(f"{directory}/file{index}", content.take(size), mode))
        tars.append(tar(members))
    return tars


class _Content:
    """The bytes of real files, one after another; from the first again when they are used up."""

    def __init__(self) -> None:
        self._pieces = self._files()
        self._rest = b""

    def take(self, size: int) -> bytes:
        parts = [self._rest]
        length = len(self._rest)
        while length < size:
            parts.append(next(self._pieces))
            length += len(parts[-1])
        whole = b"".join(parts)
        self._rest = whole[size:]
        return whole[:size]

    def _files(self) -> Iterator[bytes]:
        paths = [
            Path(directory) / name
            for directory, _, names in os.walk(_SOURCE)
            for name in names
            if not (Path(directory) / name).is_symlink()
        ]
        # Mixed, whatever a directory holds, and the same on machines with the same packages.
        paths.sort(key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
        while True:
            for path in paths:
                with path.open("rb") as file:
                    if data := file.read(_LARGEST_BYTES):
                        yield data
