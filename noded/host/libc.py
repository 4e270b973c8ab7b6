"""The one door to the C library: calls through ctypes, and errno values as noded errors.

ctypes releases the interpreter lock during a call, so a mount on a dead server blocks its own
thread only.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any

from noded.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    NodedError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
    Unimplemented,
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# Calls newer than the C libraries of supported distributions. Since Linux 5.1 new system calls
# have one number on all architectures (include/uapi/asm-generic/unistd.h).
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

_CLASSES: dict[int, type[NodedError]] = {
    errno.ENOENT: NotFound,
    errno.ESRCH: NotFound,
    errno.ENODEV: NotFound,
    errno.ENOTDIR: FailedPrecondition,
    errno.ELOOP: FailedPrecondition,
    errno.EINVAL: FailedPrecondition,
    errno.EXDEV: FailedPrecondition,
    errno.EROFS: FailedPrecondition,
    errno.ENOTEMPTY: FailedPrecondition,
    errno.EEXIST: AlreadyExists,
    errno.EPERM: PermissionDenied,
    errno.EACCES: PermissionDenied,
    errno.EBUSY: Unavailable,
    errno.EAGAIN: Unavailable,
    errno.EINTR: Unavailable,
    errno.ETIMEDOUT: Unavailable,
    errno.ENOSPC: ResourceExhausted,
    errno.EDQUOT: ResourceExhausted,
    errno.EMFILE: ResourceExhausted,
    errno.ENFILE: ResourceExhausted,
    errno.ENOMEM: ResourceExhausted,
    errno.EUSERS: ResourceExhausted,
    errno.ENOSYS: Unimplemented,
    errno.EOPNOTSUPP: Unimplemented,
}


def kernel_error(number: int, action: str) -> NodedError:
    """Return (not raise) the error for an errno; `action` reads like "cannot mount proc on /x"."""
    name = errno.errorcode.get(number, str(number))
    return _CLASSES.get(number, Internal)(f"{action}: {os.strerror(number)} ({name})")


def os_error(error: OSError, action: str) -> NodedError:
    """Return the error for an OSError of the standard library."""
    if error.errno is None:
        return Internal(f"{action}: {error}")
    return kernel_error(error.errno, action)


def call(function: str, *arguments: Any) -> int:
    """Call a C library function that reports failure as -1.

    Arguments are ctypes values, bytes (a C string) or None (NULL).

    Raises: OSError with the errno; the caller names what it was doing.
    """
    result: int = getattr(_libc, function)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def system_call(number: int, *arguments: Any) -> int:
    """Call a system call by number. Plain ints are widened to long, as syscall(2) expects.

    Raises: OSError with the errno.
    """
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return call("syscall", ctypes.c_long(number), *wide)
