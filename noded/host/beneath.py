"""Paths of a container, resolved by its own view of the tree: `/` and `..` never leave its root.

openat2(2) with RESOLVE_IN_ROOT does it in the kernel, safe against links that change meanwhile.
Where it is missing (before Linux 5.6, or behind a seccomp filter) a walk by descriptors, one
component at a time and never following a link in the kernel, gives the same answer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from pathlib import Path

from noded.errors import FailedPrecondition, NotFound
from noded.host import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_LINKS_LIMIT = 40  # as the kernel, path_resolution(7)
_RACES_LIMIT = 100  # EAGAIN: a rename elsewhere made ".." uncertain


class _OpenHow(ctypes.Structure):
    """`struct open_how` (openat2(2))."""

    _fields_ = [
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def openat2(directory: int, path: bytes, flags: int, resolve: int) -> int:
    """openat2(2), close-on-exec.

    Raises: OSError.
    """
    how = _OpenHow(flags=flags | os.O_CLOEXEC, mode=0, resolve=resolve)
    for _ in range(_RACES_LIMIT):
        try:
            return libc.system_call(libc.SYS_OPENAT2, directory, path, ctypes.byref(how), ctypes.sizeof(how))
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def open_directory(directory: int, name: bytes) -> int:
    """Open a directory below an open one: through no link, and not across a mount where openat2 is there.

    Raises: OSError; EXDEV for a mount.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    try:
        return openat2(directory, name, flags, RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    found = os.dup(directory)
    for part in name.split(b"/"):
        try:
            inner = os.open(part, flags | os.O_CLOEXEC, dir_fd=found)
        finally:
            os.close(found)
        found = inner
    return found


def open_beneath(root: Path, path: str, flags: int = os.O_PATH) -> int:
    """Open a path as a process whose root is `root` would; the caller closes the descriptor.

    With the default flags nothing is read and no device or fifo is touched.

    Raises: NotFound; FailedPrecondition for a loop or a file in place of a directory.
    """
    what = f"cannot open {path} below {root}"
    if "\0" in path:
        raise FailedPrecondition(f"{what}: the path has a NUL")
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return _open_in(top, os.fsencode(path), flags)
        finally:
            os.close(top)
    except OSError as error:
        raise libc.os_error(error, what) from None


def resolve_beneath(root: Path, path: str) -> Path:
    """Return where a container's path is on the host, all links resolved inside the root.

    The answer may be outdated when a running container changes the tree: to act on it safely, use
    `open_beneath` and /proc/self/fd.

    Raises: as `open_beneath`.
    """
    fd = open_beneath(root, path)
    try:
        return Path(os.readlink(f"/proc/self/fd/{fd}"))
    finally:
        os.close(fd)


def exists_beneath(root: Path, path: str) -> bool:
    """Tell whether a container has a file. Raises: as `resolve_beneath`, but for NotFound."""
    try:
        resolve_beneath(root, path)
    except NotFound:
        return False
    return True


def _open_in(top: int, path: bytes, flags: int) -> int:
    try:
        return openat2(top, path or b".", flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        # EPERM: the answer of seccomp filters that do not know the call. A real EPERM comes again.
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
    return walk(top, path, flags)


def walk(top: int, path: bytes, flags: int) -> int:
    """Resolve without openat2. A stack of directories makes `..` stop at the top.

    Raises: OSError.
    """
    pending = path.split(b"/")[::-1]
    stack = [os.dup(top)]
    links = 0
    try:
        while pending:
            part = pending.pop()
            if part in (b"", b".", b"..") and not stat.S_ISDIR(os.fstat(stack[-1]).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(stack) > 1:
                    os.close(stack.pop())
                continue
            found = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=stack[-1])
            if not stat.S_ISLNK(os.fstat(found).st_mode):
                stack.append(found)
                continue
            try:
                target = os.readlink(b"", dir_fd=found)
            finally:
                os.close(found)
            links += 1
            if links > _LINKS_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith(b"/"):
                while len(stack) > 1:
                    os.close(stack.pop())
            pending.extend(target.split(b"/")[::-1])
        if flags & os.O_PATH:
            return stack.pop()
        return os.open(f"/proc/self/fd/{stack[-1]}", flags | os.O_CLOEXEC)
    finally:
        for fd in stack:
            os.close(fd)
