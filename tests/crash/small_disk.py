"""A small file system in a loop file, ext4 or btrfs, to be filled to the last block."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.crash.faults import FaultyDaemon

_CHUNK_BYTES = 1 << 20
_INODES = 4096
_MKFS = {
    "ext4": ("mkfs.ext4", "-q", "-m", "0", "-N", str(_INODES)),
    "btrfs": ("mkfs.btrfs", "-q", "--mixed"),
}
_OPTIONS = {"ext4": "loop,errors=remount-ro", "btrfs": "loop"}


class SmallDisk:
    """Mounted at `target` when made; the loop device goes with the mount."""

    def __init__(self, image: Path, target: Path, megabytes: int, kind: str = "ext4") -> None:
        self._filler, self._inodes = target / "filler", target / "inodes"
        self._target = target
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run([*_MKFS[kind], image], check=True, capture_output=True)
        target.mkdir(parents=True, exist_ok=True)
        self._image, self._options = image, _OPTIONS[kind]
        self.mount()

    def mount(self) -> None:
        """Once more, after `close`."""
        subprocess.run(["mount", "-o", self._options, self._image, self._target], check=True)

    def check(self) -> str:
        """Repair an unmounted ext4 as a boot does; what e2fsck said."""
        done = subprocess.run(["e2fsck", "-p", "-f", "-v", self._image], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout + done.stderr  # 1: errors were corrected
        return f"{done.returncode}: {done.stdout}{done.stderr}"

    def fill(self) -> None:
        """Take every free block, also those that a file system finds only when it writes."""
        taken = -1
        while self._taken() > taken:
            taken = self._taken()
            with self._filler.open("ab", buffering=0) as file:
                size = _CHUNK_BYTES
                while size:
                    try:
                        if file.write(bytes(size)) == size:
                            continue
                    except OSError:
                        pass
                    size //= 2
                with suppress(OSError):
                    os.fsync(file.fileno())

    def _taken(self) -> int:
        return self._filler.stat().st_blocks if self._filler.exists() else 0

    def fill_inodes(self) -> None:
        """Make files until there is no inode left."""
        self._inodes.mkdir()
        with suppress(OSError):
            for number in itertools.count():
                (self._inodes / str(number)).touch()

    def free_inodes(self) -> None:
        """Remove those files. Idempotent."""
        shutil.rmtree(self._inodes, ignore_errors=True)

    def fail(self) -> None:
        """Let the file system find an error: from now on the kernel refuses writes."""
        number = self._target.stat().st_dev
        device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        Path(f"/sys/fs/ext4/{device.name}/trigger_fs_error").write_text("1")

    def free(self) -> None:
        """Give the space back. Idempotent."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self._target], check=False, capture_output=True)


class DaemonOnSmallDisk(FaultyDaemon):
    """A noded whose root directory is on a disk of its own."""

    disk: SmallDisk

    def __init__(self, directory: Path, megabytes: int, kind: str = "ext4", **options: Any) -> None:
        super().__init__(directory, **options)
        self._megabytes, self._kind = megabytes, kind

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, mode=0o711)
        self.disk = SmallDisk(self.directory / "disk.img", self.root, self._megabytes, self._kind)
        super().prepare()

    def close(self) -> None:
        with suppress(OSError):  # of a failed file system nothing can be removed
            self.disk.free()
            self.disk.free_inodes()
        try:
            super().close()
        finally:
            self.disk.close()
