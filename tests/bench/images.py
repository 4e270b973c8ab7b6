"""The images of the bench: small ones for pods, a large one of many small files for pulls."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.images import Entry, build, busybox_image, tar
from tests.support.registry import Registry

_WORDS = 4096  # distinct blocks of text that files are made of: compresses about 3 to 1, as real layers


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
    """Tars with `entries` members and `total_bytes` of content altogether, the same at every run."""
    chance = random.Random(9)
    blocks = [chance.randbytes(48) + bytes(chance.choices(b"etaoin shrdlu", k=81)) for _ in range(_WORDS)]
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
            content = b"".join(chance.choices(blocks, k=size // 129 + 1))[:size]
            members.append(Entry(f"{directory}/file{index}", content, chance.choice((0o644, 0o755))))
        tars.append(tar(members))
    return tars
