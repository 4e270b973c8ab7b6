"""How the C library keeps memory."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # mallopt(3)


def one_arena() -> None:
    """Let all threads allocate from one heap, if this is glibc: each further one costs a megabyte and more.

    Python's own small objects are elsewhere, and the interpreter runs one thread at a time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
