"""Swaps directory entries between what they are and links, without a gap, until its input ends."""

from __future__ import annotations

import ctypes
import os
import select
import sys

_EXCHANGE = 2  # RENAME_EXCHANGE, renameat2(2)
_AT_FDCWD = -100


def main(entries: list[str]) -> None:
    """Swap each entry with the one of the same name and `-link`."""
    libc = ctypes.CDLL(None, use_errno=True)
    pairs = [(os.fsencode(entry), os.fsencode(f"{entry}-link")) for entry in entries]
    swaps = 0
    while not select.select([0], [], [], 0)[0]:
        for _ in range(20):
            for one, two in pairs:
                if libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, two, _EXCHANGE):
                    raise OSError(ctypes.get_errno(), f"cannot exchange {one!r} and {two!r}")
            if not swaps:
                print("swapping", flush=True)
            swaps += len(pairs)
    print(swaps)


if __name__ == "__main__":
    main(sys.argv[1:])
