"""Files that are read in a trio thread and stop when its caller is cancelled, however long they are."""

from __future__ import annotations

from typing import IO

import trio


class InterruptibleReader:
    """The reading side of a file, for what copies in chunks. Raises trio.Cancelled between two of them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        trio.from_thread.check_cancelled()
        return self._file.read(size)
