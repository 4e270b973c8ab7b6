"""Swaps directory entries between what they are and links, until its input ends.

There is never a moment without the entry, and there are pauses in which it is what it was: a runtime that is
met by a link at each of its steps refuses every container, and the ways past its checks are not tried.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import sys

_EXCHANGE = 2  # RENAME_EXCHANGE, renameat2(2)
_AT_FDCWD = -100
_PAUSES_SECONDS = (0.0, 0.001, 0.01, 0.03)


def main(entries: list[str]) -> None:
    """Swap each entry with the one of the same name and `-link`."""
    libc = ctypes.CDLL(None, use_errno=True)
    pairs = [(os.fsencode(entry), os.fsencode(f"{entry}-link")) for entry in entries]
    swaps = 0
    pauses = itertools.cycle(_PAUSES_SECONDS)
    while not select.select([0], [], [], next(pauses))[0]:
        for _ in range(200):
            for one, two in pairs:
                if libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, two, _EXCHANGE):
                    raise OSError(ctypes.get_errno(), f"cannot exchange {one!r} and {two!r}")
            if not swaps:
                print("swapping", flush=True)
            swaps += len(pairs)
    print(swaps)


if __name__ == "__main__":
    main(sys.argv[1:])
