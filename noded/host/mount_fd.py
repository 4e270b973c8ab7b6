"""Mounts as file descriptors (Linux 5.2+): fsopen(2), open_tree(2), mount_setattr(2), move_mount(2).

A mount is complete, read-only and idmapped where asked, before anybody can see it.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from noded.host import libc

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x100000

_OPEN_TREE_CLONE = 0x1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 0x4
_FSOPEN_CLOEXEC = 0x1
_FSMOUNT_CLOEXEC = 0x1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000


class MountAttr(ctypes.Structure):
    """`struct mount_attr`, version 0 (mount_setattr(2))."""

    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_filesystem(
    source: str,
    target: Path,
    fstype: str,
    options: Sequence[tuple[str, str | None]],
    attributes: int = 0,
) -> None:
    """Mount a new file system by fsopen(2): options of any length, and the kernel's own reasons.

    Args:
        options: in order; a value of None sets a flag. A key may repeat (overlay's `lowerdir+`).
        attributes: MOUNT_ATTR_* bits.

    Raises: Unimplemented before Linux 5.2; else by errno with what the file system said.
    """
    what = f"cannot mount {fstype} on {target}"
    try:
        context = libc.system_call(libc.SYS_FSOPEN, os.fsencode(fstype), _FSOPEN_CLOEXEC)
    except OSError as error:
        raise libc.os_error(error, what) from None
    try:
        tree = _configured(context, source, options, attributes, what)
        try:
            attach(tree, target, what)
        finally:
            os.close(tree)
    finally:
        os.close(context)


def _configured(
    context: int, source: str, options: Sequence[tuple[str, str | None]], attributes: int, what: str
) -> int:
    step = "source"
    try:
        if source:
            _set_option(context, "source", source)
        for key, value in options:
            step = key if value is None else f"{key}={value}"
            _set_option(context, key, value)
        step = ""
        libc.system_call(libc.SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return libc.system_call(libc.SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    except OSError as error:
        said = "; ".join(_context_messages(context))
        parts = [what, f"option {step!r}" if step else "", said]
        raise libc.os_error(error, ", ".join(part for part in parts if part)) from None


def _set_option(context: int, key: str, value: str | None) -> None:
    name = os.fsencode(key)
    if value is None:
        libc.system_call(libc.SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, name, None, 0)
    else:
        libc.system_call(libc.SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, name, os.fsencode(value), 0)


def _context_messages(context: int) -> Iterator[str]:
    """Yield the messages that the file system left, each without its severity letter."""
    while True:
        try:
            message = os.read(context, 4096)
        except OSError:  # ENODATA: no more
            return
        yield message.decode(errors="replace").strip()[2:]


@contextmanager
def cloned(source: Path, what: str, *, recursive: bool) -> Iterator[int]:
    """Hold a detached copy of the mount at `source`; it vanishes at the end unless attached."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    try:
        tree = libc.system_call(libc.SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags)
    except OSError as error:
        raise libc.os_error(error, what) from None
    try:
        yield tree
    finally:
        os.close(tree)


def set_attributes(tree: int, attributes: MountAttr, what: str, *, recursive: bool) -> None:
    """mount_setattr(2) on a detached mount. Raises: by errno; `what` begins the message."""
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    size = ctypes.sizeof(attributes)
    try:
        libc.system_call(libc.SYS_MOUNT_SETATTR, tree, b"", flags, ctypes.byref(attributes), size)
    except OSError as error:
        raise libc.os_error(error, what) from None


def attach(tree: int, target: Path, what: str) -> None:
    """move_mount(2) of a detached mount to `target`. Raises: by errno; `what` begins the message."""
    try:
        libc.system_call(
            libc.SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH
        )
    except OSError as error:
        raise libc.os_error(error, what) from None
