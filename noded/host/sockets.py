"""The unix sockets that the daemon listens on: made here, or inherited from systemd."""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

from noded.errors import FailedPrecondition, InvalidArgument

_MODE = 0o660
_FIRST_INHERITED_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
_LONGEST_PATH_BYTES = 107  # sun_path, less the final NUL: unix(7)


def bind(path: Path, group: str = "", *, field: str = "listen") -> socket.socket:
    """Make a unix socket at `path`, mode 0660, for root and `group`; not yet listening.

    The socket appears under its name complete with owner and mode, in one rename, in place of the
    socket that a dead process left. Blocks only for the directory entry.

    Args:
        field: the configuration key of `path`, for errors.

    Raises: FailedPrecondition when a process listens there already or the path is not a socket;
        InvalidArgument for an unknown group or a path too long for a socket address.
    """
    gid = _gid(group)
    temporary = path.with_name(f".{os.getpid():x}")
    if max(len(os.fsencode(path)), len(os.fsencode(temporary))) > _LONGEST_PATH_BYTES:
        raise InvalidArgument(
            f"{field}: {path} does not fit a socket address of {_LONGEST_PATH_BYTES} bytes: shorten it"
        )
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _refuse_if_taken(path, field)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            temporary.unlink()
        listener.bind(os.fspath(temporary))
        os.chown(temporary, -1, gid)
        temporary.chmod(_MODE)
        listener.listen()  # before the rename: whoever sees the name can connect
        temporary.rename(path)
    except BaseException:
        listener.close()
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    return listener


def unlink(path: Path) -> None:
    """Remove the socket file after the listener is closed, unless a successor listens by now. Idempotent."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode) and not somebody_listens(path):
            path.unlink()


def inherited(environ: MutableMapping[str, str]) -> socket.socket | None:
    """The first listening unix socket that systemd passed, None if it passed none.

    Removes the LISTEN_ variables, so that child processes do not take them for theirs.
    Spec: sd_listen_fds(3).
    """
    variables = {name: environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")}
    if variables["LISTEN_PID"] != str(os.getpid()) or not variables["LISTEN_FDS"].isdecimal():
        return None
    for fd in range(_FIRST_INHERITED_FD, _FIRST_INHERITED_FD + int(variables["LISTEN_FDS"])):
        os.set_inheritable(fd, False)
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            continue
        candidate = socket.socket(fileno=fd)
        if candidate.family == socket.AF_UNIX and candidate.type == socket.SOCK_STREAM:
            return candidate
        candidate.detach()
    return None


def difference(listener: socket.socket, path: Path, group: str) -> str:
    """What an inherited socket has other than the configuration says, "" when nothing.

    Args:
        path: `listen` of the configuration.
        group: `listen_group`, "" = root.
    """
    bound = Path(os.fsdecode(listener.getsockname()))
    if os.path.realpath(bound) != os.path.realpath(path):
        return f"the service manager's socket is {bound}, listen says {path}: clients of that find nobody"
    try:
        gid = bound.stat().st_gid
    except OSError as error:
        return f"the service manager's socket {bound} has no file: {error.strerror}"
    if group and gid != _gid(group):
        return (
            f"the service manager's socket {bound} is not for group {group} of listen_group: set SocketGroup="
        )
    return ""


def _gid(group: str) -> int:
    if not group:
        return -1
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidArgument(f"listen_group: there is no group {group!r}") from None


def _refuse_if_taken(path: Path, field: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FailedPrecondition(f"{field}: {path} exists and is not a socket: move it away")
    if somebody_listens(path):
        raise FailedPrecondition(f"{field}: another process listens on {path}: stop it first")


def somebody_listens(path: Path) -> bool:
    """Whether a connection does not fail with "refused", which only a dead socket answers. Never blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(os.fspath(path)) not in (errno.ECONNREFUSED, errno.ENOENT)
