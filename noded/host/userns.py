"""User namespaces: made by a short-lived child, since a threaded process cannot make its own.

The child is `unshare --user ... cat` of util-linux. One byte through `cat` and back proves that the
namespaces exist; then the mappings are written from outside, where the privilege for any range is.
`cat` ends with its standard input, also when the daemon is killed: nothing is left over.
"""

from __future__ import annotations

import errno
import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import trio

from noded.errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, NodedError, Unavailable
from noded.host import libc, namespaces
from noded.model.pod import IDMapping

_UNSHARE = "unshare"
_DEADLINE_SECONDS = 10.0
_MAPPINGS_LIMIT = 340  # lines that a map may have, user_namespaces(7)


def format_id_map(mappings: Sequence[IDMapping], field: str) -> str:
    """Write mappings as /proc/PID/uid_map wants them.

    Raises: InvalidArgument naming `field` for an empty, overlong or overlapping mapping.
    """
    if not mappings:
        raise InvalidArgument(f"{field}: at least one mapping is needed")
    if len(mappings) > _MAPPINGS_LIMIT:
        raise InvalidArgument(f"{field}: {len(mappings)} mappings, the kernel takes {_MAPPINGS_LIMIT}")
    for mapping in mappings:
        for start in (mapping.host_id, mapping.container_id):
            if mapping.length < 1 or start < 0 or start + mapping.length > 2**32 - 1:
                raise InvalidArgument(f"{field}: {mapping} is not a range of ids")
    for side in ("container_id", "host_id"):
        ranges = sorted((getattr(mapping, side), mapping.length) for mapping in mappings)
        for (start, length), (after, _) in pairwise(ranges):
            if start + length > after:
                raise InvalidArgument(f"{field}: mappings overlap at {side} {after}")
    return "".join(f"{mapping.container_id} {mapping.host_id} {mapping.length}\n" for mapping in mappings)


@contextmanager
def open_mapped_userns(
    uids: Sequence[IDMapping], gids: Sequence[IDMapping], *, timeout_seconds: float = _DEADLINE_SECONDS
) -> Iterator[int]:
    """Hold a file descriptor of a new user namespace with these mappings, e.g. for idmapped mounts.

    Blocks for some milliseconds: use from a worker thread.

    Raises: InvalidArgument for bad mappings, Unavailable or DeadlineExceeded from the child.
    """
    with _child((), uids, gids, timeout_seconds) as pid:
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


async def pin_with_user_namespace(
    pins: Mapping[str, Path],
    hostname: str | None,
    uids: Sequence[IDMapping],
    gids: Sequence[IDMapping],
) -> None:
    """Make and pin a user namespace and others that it owns.

    Args:
        pins: as for `namespaces.pin`, and `user`. A half-made set of an earlier attempt is replaced:
            nothing ran in it, since that attempt failed.
        hostname: name in the new uts namespace, None = the host's.

    Raises: as `namespaces.pin`; InvalidArgument for bad mappings. Cancellation: waits for the work in
        progress, at most 10 s.
    """
    await trio.to_thread.run_sync(_pin_all, dict(pins), hostname, tuple(uids), tuple(gids))


def _pin_all(
    pins: dict[str, Path], hostname: str | None, uids: tuple[IDMapping, ...], gids: tuple[IDMapping, ...]
) -> None:
    if "user" not in pins:
        raise InvalidArgument("pins: a user namespace needs a pin named user")
    namespaces.check_hostname(hostname)
    if is_complete(pins):
        return
    for path in pins.values():
        namespaces.unpin(path)
        namespaces.create_pin_file(path)
    owned = [kind for kind in pins if kind != "user"]
    with _child(owned, uids, gids, _DEADLINE_SECONDS) as pid:
        sources = {kind: Path(f"/proc/{pid}/ns/{kind}") for kind in pins}
        entered = {kind: path for kind, path in sources.items() if kind in ("net", "uts")}
        namespaces.inside(entered, lambda: namespaces.set_up(entered, hostname))
        for kind, path in pins.items():
            namespaces.bind_namespace(sources[kind], path)


def is_complete(pins: Mapping[str, Path]) -> bool:
    """Tell whether all pins are live and the others are owned by the one named `user`."""
    if any(namespaces.namespace_type(path) != kind for kind, path in pins.items()):
        return False
    owner = namespaces.inode(pins["user"])
    return all(namespaces.owner_inode(path) == owner for kind, path in pins.items() if kind != "user")


@contextmanager
def _child(
    kinds: Sequence[str], uids: Sequence[IDMapping], gids: Sequence[IDMapping], timeout_seconds: float
) -> Iterator[int]:
    """Hold a process in a new, mapped user namespace (and others it owns); yield its pid."""
    uid_map = format_id_map(uids, "userns_options.uids")
    gid_map = format_id_map(gids, "userns_options.gids")
    flags = [f"--{kind}" for kind in ("user", *kinds)]
    deadline = time.monotonic() + timeout_seconds
    try:
        process = subprocess.Popen(
            [_UNSHARE, *flags, "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            bufsize=0,
        )
    except FileNotFoundError:
        raise FailedPrecondition(f"{_UNSHARE} was not found: install util-linux") from None
    except OSError as error:
        raise libc.os_error(error, f"cannot start {_UNSHARE}") from None
    try:
        _handshake(process, deadline)
        _write_map(process.pid, "uid_map", uid_map)
        _write_map(process.pid, "gid_map", gid_map)
        yield process.pid
    finally:
        _end(process, deadline)


def _handshake(process: subprocess.Popen[bytes], deadline: float) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(b"\n")
    except BrokenPipeError:
        raise _refusal(process, deadline) from None
    ready = select.poll()
    ready.register(process.stdout, select.POLLIN)
    if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise DeadlineExceeded(f"{_UNSHARE} made no user namespace in time")
    if process.stdout.read(1) != b"\n":
        raise _refusal(process, deadline)


def _refusal(process: subprocess.Popen[bytes], deadline: float) -> NodedError:
    try:
        _, said = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        said = b""
    words = said.decode(errors="replace").strip() or f"exit code {process.returncode}"
    return Unavailable(
        f"cannot create a user namespace: {words}; see user.max_user_namespaces and the "
        "distribution's limits on user namespaces"
    )


def _write_map(pid: int, name: str, text: str) -> None:
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())  # the kernel takes the map in exactly one write
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise InvalidArgument(f"userns_options: the kernel refuses the {name} {text.strip()!r}") from None
        raise libc.os_error(error, f"cannot write {name} of a user namespace") from None


def _end(process: subprocess.Popen[bytes], deadline: float) -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
