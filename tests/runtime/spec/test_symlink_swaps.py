"""Someone swaps a link into a container's files while its mounts are made: no file of the host gets in.

The swapper exchanges the two names atomically and all the time, as a process of another container that
shares a volume could (CVE-2021-30465 and its like).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from noded.errors import FailedPrecondition, NotFound
from noded.host.beneath import open_beneath, resolve_beneath, walk
from noded.host.files import read_beneath
from noded.model.container import ContainerConfig, Mount
from noded.spec.container import container_spec
from noded.spec.inputs import ResolvedMount

pytestmark = pytest.mark.root

SWAP = Path(__file__).with_name("swap.py")
SECRET = "secret of the host"
MOUNTS = 10  # of each container that go through a swapped entry


@contextmanager
def swapping(target: Path, *entries: Path) -> Iterator[list[int]]:
    """Exchange the entries with links to `target` meanwhile; yields a list that gets the number of swaps."""
    for entry in entries:
        entry.with_name(f"{entry.name}-link").symlink_to(target)
    count: list[int] = []
    process = subprocess.Popen(
        [sys.executable, SWAP, *entries], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "swapping\n"
    try:
        yield count
    finally:
        output, _ = process.communicate("\n", timeout=30)
        assert process.returncode == 0
        count.append(int(output))


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A directory of the host with a secret in a file of the name that is looked for."""
    directory = tmp_path / "host"
    directory.mkdir()
    (directory / "passwd").write_text(SECRET)
    return directory


def test_no_lookup_in_a_root_directory_ever_leaves_it(tmp_path, host, counts):
    rootfs = tmp_path / "rootfs"
    (rootfs / "etc").mkdir(parents=True)
    (rootfs / "etc/passwd").write_text("inside")
    found = set()
    with swapping(host, rootfs / "etc") as swaps:
        for _ in range(counts(1000, 10_000)):
            data = read_beneath(rootfs, "/etc/passwd", 100)
            assert data in (b"inside", None)
            found.add(data)
            for look in (_resolved, _walked):
                path = look(rootfs)
                assert path is None or path.is_relative_to(rootfs), path
                found.add(path is None)
    assert swaps[0] > 100
    assert found == {b"inside", None, True, False}  # both sides of the race were met


def _resolved(rootfs: Path) -> Path | None:
    try:
        return resolve_beneath(rootfs, "etc/passwd")
    except (NotFound, FailedPrecondition):
        return None


def _walked(rootfs: Path) -> Path | None:
    """The way without openat2."""
    top = open_beneath(rootfs, "/")
    try:
        fd = walk(top, b"etc/passwd", os.O_PATH)
    except OSError:
        return None
    finally:
        os.close(top)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def test_a_mount_below_a_shared_volume_never_lands_outside(node, tmp_path, host, counts):
    volume = tmp_path / "volume"
    entries = [volume / f"sub{number}" for number in range(MOUNTS)]
    mounts = (
        Mount("/mnt", str(volume)),
        *(Mount(f"/mnt/{entry.name}", str(_data(tmp_path))) for entry in entries),
    )
    look = "cat /mnt/sub*/passwd"
    _race(node, entries, host, mounts, look, counts(20, 2500))


def test_a_mount_in_a_swapped_root_directory_never_lands_outside(node, tmp_path, host, counts):
    entries = [node.rootfs / f"srv{number}" for number in range(MOUNTS)]
    mounts = tuple(Mount(f"/{entry.name}/in", str(_data(tmp_path))) for entry in entries)
    _race(node, entries, host, mounts, "cat /srv*/passwd /srv*/in/passwd", counts(20, 2500))


def _data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir(exist_ok=True)
    (data / "passwd").write_text("data")
    return data


def _check_host(node, host: Path, before: list[Path]) -> None:
    """Nothing is made outside, but for the empty directories of a runc with CVE-2024-45310."""
    made = [path for path in sorted(host.rglob("*"), reverse=True) if path not in before]
    if made and node.runtime == "runc" and _runc_version(node) < (1, 1, 14):
        for path in made:
            path.rmdir()  # an error when it is anything else
        made = []
    assert made == []


def _runc_version(node) -> tuple[int, ...]:
    first = node.call("--version").stdout.split()[2]
    return tuple(int(part) for part in first.partition("-")[0].partition("+")[0].split("."))


def _refused(output: str) -> int:
    """How many mounts were tried until the runtime refused the one that its error names."""
    named = re.search(r"(?:sub|srv)(\d+)", output)
    return int(named[1]) + 1 if named else 1


def _race(node, entries: list[Path], host: Path, mounts: tuple[Mount, ...], look: str, tries: int) -> None:
    """Make containers whose mounts go through swapped entries, until so many mounts were tried."""
    for entry in entries:
        entry.mkdir(parents=True)
    before = sorted(host.rglob("*"))
    table = Path("/proc/self/mountinfo").read_text()
    command = ("/bin/sh", "-c", f"({look}) 2>/dev/null; echo end")
    resolved = tuple(ResolvedMount(mount, mount.host_path) for mount in mounts)
    ran = tried = 0
    # the links are absolute: inside the container they must mean the container's own tree
    with swapping(host, *entries) as swaps:
        while tried < tries or (not ran and tried < 50 * tries):
            spec = container_spec(
                node.inputs(ContainerConfig("main", 0, "image", command=command), mounts=resolved)
            ).value
            code, output = node.try_spec(spec)
            ran += code == 0
            tried += len(entries) if code == 0 else _refused(output)
            assert SECRET not in output, output
            _check_host(node, host, before)
    assert swaps[0] > 100
    assert ran, "every container failed: the race was never run"
    assert Path("/proc/self/mountinfo").read_text() == table
