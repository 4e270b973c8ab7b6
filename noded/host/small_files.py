"""Small files, above all of the kernel's own file systems, with as few system calls as can be.

`Path.read_text` makes ten, and a decoder, where these make three or four.
"""

from __future__ import annotations

import os
from pathlib import Path

_READ_BYTES = 65536


def read_small(path: Path | str) -> bytes:
    """Return the content of a file. Raises: OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(fd, _READ_BYTES)
        while more := os.read(fd, _READ_BYTES):  # these files give a page at a time
            content += more
        return content
    finally:
        os.close(fd)


def write_small(path: Path | str, content: bytes) -> None:
    """Write to a file that exists, in one write(2). Raises: OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
