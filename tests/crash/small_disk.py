"""A small ext4 file system in a loop file, to be filled to the last block."""

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


class SmallDisk:
    """Mounted at `target` on entry; the loop device goes with the mount."""

    def __init__(self, image: Path, target: Path, megabytes: int) -> None:
        self._filler, self._inodes = target / "filler", target / "inodes"
        self._target = target
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        subprocess.run(
            ["mkfs.ext4", "-q", "-m", "0", "-N", str(_INODES), image], check=True, capture_output=True
        )
        target.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-o", "loop,errors=remount-ro", image, target], check=True)

    def fill(self) -> None:
        """Take every free block."""
        with self._filler.open("ab", buffering=0) as file:
            size = _CHUNK_BYTES
            while size:
                try:
                    if file.write(bytes(size)) == size:
                        continue
                except OSError:
                    pass
                size //= 2

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

    def __init__(self, directory: Path, megabytes: int, **options: Any) -> None:
        super().__init__(directory, **options)
        self._megabytes = megabytes

    def prepare(self) -> None:
        self.directory.mkdir(parents=True, mode=0o711)
        self.disk = SmallDisk(self.directory / "disk.img", self.root, self._megabytes)
        super().prepare()

    def close(self) -> None:
        with suppress(OSError):  # of a failed file system nothing can be removed
            self.disk.free()
            self.disk.free_inodes()
        try:
            super().close()
        finally:
            self.disk.close()
