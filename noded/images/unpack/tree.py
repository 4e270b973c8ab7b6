"""The tree that a layer becomes, in the root directory of this process: its directories and its size.

It is that of an overlay layer: whiteouts are 0:0 character devices, opaque directories are reported to the
daemon (their attribute needs CAP_SYS_ADMIN). Directories get their metadata (`metadata.py`) at the end,
when nothing is created in them any more; one that was replaced by something else is left out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque

from noded.images.unpack.entry import Entry
from noded.images.unpack.faults import SYSTEM, LayerFault, refused
from noded.images.unpack.metadata import Metadata

WHITEOUT_DEVICE = os.makedev(0, 0)
BLOCK_BYTES = 512  # unit of st_blocks
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_SYMLINKS = 40  # the kernel's own limit (path_resolution(7))
_IMPLIED_MODE = 0o755
# Report paths are kept in the daemon's memory and in the layer's record.
_MAX_REPORTED_BYTES = 16 << 20


class Tree:
    """What is known of the tree.

    Args:
        in_place: whiteouts remove what they name, instead of hiding it.

    Attributes:
        known: directories that exist; the same set for ever.
        directories: whose metadata is still to be set.
        implied, opaque: paths, in the order of their discovery.
        inodes, used_bytes: on disk; directories count when they are finished.
        length_bytes: of all files.
    """

    def __init__(self, *, in_place: bool) -> None:
        self._in_place = in_place
        self.known = {b""}
        self.directories: dict[bytes, Entry] = {}
        self.implied: dict[bytes, None] = {b"": None}
        self.opaque: dict[bytes, None] = {}
        self.inodes = 1
        self.used_bytes = 0
        self.length_bytes = 0
        self._reported_bytes = 0

    def whiteout(self, path: bytes) -> None:
        """Hide `path` of the lower layers, but not what this layer itself has there."""
        if self._in_place:
            if os.path.lexists(path):
                self.clear(path)
            return
        try:
            os.mknod(path, stat.S_IFCHR, WHITEOUT_DEVICE)
            self.inodes += 1
        except FileExistsError:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                real = os.path.realpath(b"/" + path)[1:]
                self.report(self.opaque, real)
                self.implied.pop(real, None)

    def make_directory(self, path: bytes, mode: int) -> None:
        """Have a directory at `path`, whatever is there now."""
        try:
            os.mkdir(path, mode)
            self.inodes += 1
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode):
                self.clear(path)
                os.mkdir(path, mode)
                self.inodes += 1
                if _is_whiteout(found):  # hide what is below, then show this
                    self.report(self.opaque, os.path.realpath(b"/" + path)[1:])
        self.known.add(path)

    def ensure_directory(self, path: bytes) -> None:
        """Make sure that `path` leads to a directory, through symbolic links if need be.

        Missing directories, also those that a link points to, are created and noted as implied.
        """
        if path in self.known:
            return
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):
                self.known.add(path)
                return
        except (FileNotFoundError, NotADirectoryError):
            pass
        waiting = deque(path.split(b"/"))
        here: list[bytes] = []
        links = 0
        while waiting:
            part = waiting.popleft()
            if part in (b"", b"."):
                continue
            if part == b"..":
                del here[-1:]
                continue
            step = b"/".join((*here, part))
            try:
                found = os.lstat(step)
            except FileNotFoundError:
                self._imply(step)
            else:
                if stat.S_ISLNK(found.st_mode):
                    links += 1
                    if links > _MAX_SYMLINKS:
                        raise refused("its path has too many symbolic links")
                    target = os.readlink(step)
                    if target.startswith(b"/"):
                        here.clear()
                    waiting.extendleft(reversed(target.split(b"/")))
                    continue
                if _is_whiteout(found):
                    self.make_directory(step, _IMPLIED_MODE)
                elif not stat.S_ISDIR(found.st_mode):
                    raise refused(f"{os.fsdecode(step)!r} on its path is not a directory")
            here.append(part)
        self.known.add(path)

    def _imply(self, path: bytes) -> None:
        os.mkdir(path, _IMPLIED_MODE)
        self.inodes += 1
        self.known.add(path)
        self.directories.pop(path, None)
        self.report(self.implied, path)

    def report(self, where: dict[bytes, None], path: bytes) -> None:
        """Note a path in `opaque` or `implied`, with a bound on all of them together."""
        if path in where:
            return
        where[path] = None
        self._reported_bytes += len(path)
        if self._reported_bytes > _MAX_REPORTED_BYTES:
            raise refused("it has too many opaque directories and directories without own entry")

    def clear(self, path: bytes) -> None:
        """Remove whatever is at `path`, for an entry that replaces it."""
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            self._unlink(path, found)
            return
        self.known.clear()
        self.known.add(b"")
        doomed = [path]
        while doomed:
            top = doomed[-1]
            below = []
            with os.scandir(top) as listing:
                for item in listing:
                    if item.is_dir(follow_symlinks=False):
                        below.append(item.path)
                    else:
                        self._unlink(item.path, item.stat(follow_symlinks=False))
            if below:
                doomed += below
            else:
                os.rmdir(top)
                self.inodes -= 1
                self.directories.pop(top, None)  # its name may lead elsewhere from now on
                for noted in (self.implied, self.opaque):
                    noted.pop(top, None)
                doomed.pop()

    def empty(self, directory: bytes) -> None:
        """Remove everything in a directory."""
        with os.scandir(directory or b".") as listing:
            names = [item.name for item in listing]
        for name in names:
            self.clear(directory + b"/" + name if directory else name)

    def _unlink(self, path: bytes, found: os.stat_result) -> None:
        os.unlink(path)
        if found.st_nlink == 1:
            self.inodes -= 1
            if stat.S_ISREG(found.st_mode):
                self.used_bytes -= found.st_blocks * BLOCK_BYTES
                self.length_bytes -= found.st_size

    def node(self, path: bytes, mode: int, device: int) -> None:
        """Make a device, FIFO or whiteout in place of whatever is there."""
        try:
            os.mknod(path, mode, device)
        except FileExistsError:
            self.clear(path)
            os.mknod(path, mode, device)
        self.inodes += 1

    def finish(self, metadata: Metadata) -> None:
        """Give directories their metadata, and drop what is not implied any more."""
        own = set()
        for path, entry in self.directories.items():
            try:
                fd = os.open(path or b".", _OPEN_DIRECTORY)
            except (FileNotFoundError, NotADirectoryError):
                continue  # replaced by a later entry
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue
                raise system_fault(error, path) from None
            try:
                metadata.set_directory(fd, entry)
                found = os.fstat(fd)
            except OSError as error:
                raise system_fault(error, path) from None
            finally:
                os.close(fd)
            own.add(found.st_ino)
            self.used_bytes += found.st_blocks * BLOCK_BYTES
        # A directory made for "link/a" and described as "target/a" is not implied any more.
        for path in list(self.implied):
            found = os.lstat(path or b".")
            if found.st_ino in own:
                del self.implied[path]
            else:
                self.used_bytes += found.st_blocks * BLOCK_BYTES


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == WHITEOUT_DEVICE


def system_fault(error: OSError, entry: bytes) -> LayerFault:
    """What the kernel said about an entry."""
    number = error.errno or 0
    return LayerFault(SYSTEM, error.strerror or str(error), entry=entry, number=number)
