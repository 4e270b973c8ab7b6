"""Pod namespaces that live without a process: pinned by a bind mount of their nsfs file.

Theory of operation. A *fresh* thread (never one of a pool, whose next user would find itself in a
pod) calls unshare(2), sets up what is new, binds /proc/thread-self/ns/X over pin files and ends. A
thread may unshare net, ipc and uts namespaces; a user namespace it may not (unshare(2): EINVAL for
a threaded process), see `noded.host.userns`.

A pin is mounted only after its namespace is set up, so "pinned" implies "complete".
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import trio

from noded.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from noded.host import libc, mounts

T = TypeVar("T")

# Values of CLONE_NEW* (linux/sched.h) by the names under /proc/PID/ns.
KINDS: Mapping[str, int] = {
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "net": 0x40000000,
    "mnt": 0x00020000,
    "pid": 0x20000000,
}
_PINNABLE = ("net", "ipc", "uts")

_NS_GET_USERNS = 0xB701  # ioctl_ns(2)
_NS_GET_NSTYPE = 0xB703

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1
_IFREQ = struct.Struct("16sh22x")

_HOSTNAME_LIMIT_BYTES = 64  # __NEW_UTS_LEN


async def pin_namespaces(pins: Mapping[str, Path], hostname: str | None) -> None:
    """`pin` from trio. Cancellation: waits for the kernel calls in progress, some milliseconds."""
    await trio.to_thread.run_sync(pin, pins, hostname)


def pin(pins: Mapping[str, Path], hostname: str | None) -> None:
    """Make new namespaces and pin them; kinds already pinned stay as they are.

    Args:
        pins: kind (`net`, `ipc`, `uts`) to the file that will hold it; parents are created.
        hostname: name inside a new uts namespace, None = the host's.

    Raises: InvalidArgument for a bad kind or hostname; others by errno. After a failure some pins
        may exist: call again, or `unpin` each.
    """
    for kind in pins:
        if kind not in _PINNABLE:
            raise InvalidArgument(
                f"namespace kind {kind!r} cannot be pinned; use one of {', '.join(_PINNABLE)}"
            )
    check_hostname(hostname)
    missing = {kind: path for kind, path in pins.items() if namespace_type(path) != kind}
    if not missing:
        return
    for path in missing.values():
        create_pin_file(path)

    def make() -> None:
        flags = 0
        for kind in missing:
            flags |= KINDS[kind]
        what = f"cannot create {', '.join(missing)} namespaces"
        try:
            libc.call("unshare", ctypes.c_int(flags))
        except OSError as error:
            raise libc.os_error(error, what) from None
        set_up(missing, hostname)
        for kind, path in missing.items():
            bind_namespace(Path(f"/proc/thread-self/ns/{kind}"), path)

    in_fresh_thread(make, "noded-pin")


def unpin(path: Path) -> None:
    """Unmount a pin and remove its file; the namespace ends with its last user. Idempotent.

    Raises: FailedPrecondition when `path` is no pin but holds data or is a directory.
    """
    mounts.unmount(path, detach=True)
    try:
        found = os.lstat(path)
        if found.st_size or not _is_plain(found.st_mode):
            raise FailedPrecondition(f"{path} is not a namespace pin: it is not an empty file")
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise libc.os_error(error, f"cannot remove the namespace pin {path}") from None


def inside(pins: Mapping[str, Path], fn: Callable[[], T]) -> T:
    """Run `fn` in a fresh thread that has entered the pinned namespaces; return its result.

    `/proc/self` still shows the main thread there: use `/proc/thread-self`. A user namespace cannot
    be entered by a threaded process and need not be: root outside may act on what it owns.

    Raises: what `fn` raises; NotFound or FailedPrecondition for a missing or wrong pin.
    """
    with ExitStack() as opened:
        handles: list[tuple[str, Path, int]] = []
        for kind, path in pins.items():
            if kind == "user":
                raise InvalidArgument("a thread cannot enter a user namespace")
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                raise libc.os_error(error, f"cannot open the {kind} namespace {path}") from None
            opened.callback(os.close, fd)
            handles.append((kind, path, fd))

        def entered() -> T:
            for kind, path, fd in handles:
                try:
                    libc.call("setns", ctypes.c_int(fd), ctypes.c_int(KINDS[kind]))
                except OSError as error:
                    raise libc.os_error(error, f"cannot enter the {kind} namespace {path}") from None
            return fn()

        return in_fresh_thread(entered, "noded-inside")


def in_fresh_thread(fn: Callable[[], T], name: str) -> T:
    """Run `fn` in a new thread and wait for it: its namespaces and ids end with the thread.

    Raises: what `fn` raises; ResourceExhausted when no thread can be started.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(fn())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name)
    try:
        thread.start()
    except RuntimeError:
        raise ResourceExhausted("cannot start a thread: raise the limit on tasks (pids, ulimit -u)") from None
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def namespace_type(path: Path) -> str | None:
    """Return the kind of namespace that a file is, None when it is none or missing."""
    flag = _asked(path, _NS_GET_NSTYPE)
    return next((kind for kind, value in KINDS.items() if value == flag), None)


def is_namespace_pin(path: Path) -> bool:
    """Tell whether `path` is a live pin of any kind."""
    return namespace_type(path) is not None


def inode(path: Path) -> int:
    """Return the number that identifies a namespace, as in `net:[4026531840]`.

    Raises: NotFound.
    """
    try:
        return os.stat(path).st_ino
    except OSError as error:
        raise libc.os_error(error, f"cannot read the namespace {path}") from None


def owner_inode(path: Path) -> int | None:
    """Return the identity of the user namespace that owns a namespace, None where it is no pin."""
    owner = _asked(path, _NS_GET_USERNS)
    if owner is None:
        return None
    try:
        return os.fstat(owner).st_ino
    finally:
        os.close(owner)


def _asked(path: Path, request: int) -> int | None:
    """The answer to an ioctl of ioctl_ns(2), None where the file is no namespace or missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return fcntl.ioctl(fd, request)
    except OSError:
        return None
    finally:
        os.close(fd)


def check_hostname(hostname: str | None) -> None:
    """Raises: InvalidArgument naming `hostname` when the kernel would refuse it."""
    if hostname is not None and (len(os.fsencode(hostname)) > _HOSTNAME_LIMIT_BYTES or "\0" in hostname):
        raise InvalidArgument(
            f"hostname {hostname!r} is longer than {_HOSTNAME_LIMIT_BYTES} bytes or has a NUL"
        )


def set_up(kinds: Mapping[str, object], hostname: str | None) -> None:
    """Prepare the calling thread's new namespaces of these kinds: hostname and loopback device."""
    if "uts" in kinds and hostname is not None:
        try:
            socket.sethostname(hostname)
        except OSError as error:
            raise libc.os_error(error, f"cannot set hostname {hostname!r}") from None
    if "net" in kinds:
        try:
            bring_loopback_up()
        except OSError as error:
            raise libc.os_error(error, "cannot bring the loopback device up") from None


def bring_loopback_up() -> None:
    """Set IFF_UP on `lo` of the calling thread's network namespace (netdevice(7)); adds its addresses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, _IFREQ.pack(b"lo", 0))
        flags = _IFREQ.unpack(request)[1]
        fcntl.ioctl(control, _SIOCSIFFLAGS, _IFREQ.pack(b"lo", flags | _IFF_UP))


def create_pin_file(path: Path) -> None:
    """Create the empty file that a pin is mounted on; an empty one of a run before is kept."""
    what = f"cannot create the namespace pin {path}"
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o444))
    except FileExistsError:
        found = os.lstat(path)
        if found.st_size or not _is_plain(found.st_mode):
            raise FailedPrecondition(f"{what}: something else is there") from None
    except OSError as error:
        raise libc.os_error(error, what) from None


def bind_namespace(source: Path, path: Path) -> None:
    """Mount a /proc/PID/ns file on its pin file.

    Raises: by errno; EINVAL usually means that the pin's mount is itself inside a namespace file.
    """
    try:
        libc.call("mount", os.fsencode(source), os.fsencode(path), None, ctypes.c_ulong(mounts.MS_BIND), None)
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FailedPrecondition(
                f"cannot pin a namespace at {path}: the file was removed meanwhile"
            ) from None
        raise libc.os_error(error, f"cannot pin a namespace at {path}") from None


def _is_plain(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000
