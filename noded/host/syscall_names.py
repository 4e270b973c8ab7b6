"""Numbers and names of system calls on each architecture, as libseccomp knows them.

libseccomp is there wherever an OCI runtime is: both use it to build their filters.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

from noded.errors import FailedPrecondition


@lru_cache(maxsize=1)
def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise FailedPrecondition(
            f"libseccomp 2 is needed to name system calls: install it ({error})"
        ) from None
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    library.seccomp_syscall_resolve_num_arch.argtypes = (ctypes.c_uint32, ctypes.c_int)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
    library.seccomp_arch_resolve_name.argtypes = (ctypes.c_char_p,)
    return library


def name_of(arch: int, number: int) -> str:
    """The name of a call; `arch` is the kernel's AUDIT_ARCH value. A number without name stays a number.

    Raises: FailedPrecondition when libseccomp is missing.
    """
    address = _library().seccomp_syscall_resolve_num_arch(arch, number)
    if not address:
        return f"syscall {number}"
    try:
        return ctypes.string_at(address).decode()
    finally:
        _free(address)


def number_of(arch: int, name: str) -> int | None:
    """The number of a call on an architecture, None where there is no such call. Raises as `name_of`."""
    number = int(_library().seccomp_syscall_resolve_name_arch(arch, name.encode()))
    return None if number < 0 else number


def arch_of(name: str) -> int | None:
    """The AUDIT_ARCH value of an OCI architecture name, `SCMP_ARCH_X86_64`... Raises as `name_of`."""
    short = name.removeprefix("SCMP_ARCH_").lower()
    return int(_library().seccomp_arch_resolve_name(short.encode())) or None


def _free(address: int) -> None:
    free = ctypes.CDLL(None).free
    free.argtypes = (ctypes.c_void_p,)
    free(address)
