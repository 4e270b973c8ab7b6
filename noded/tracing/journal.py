"""The journal of calls: files of JSON lines, bounded in bytes, never synced.

Nothing depends on it, so it is written without fsync: a crash of the daemon loses what it had not handed
over yet, a crash of the node some seconds more. A line that a crash cut off is passed over by readers. A
call has several lines if it was written while it ran; `noded.model.timeline.merge` puts them together.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import structlog

from noded.model.timeline import Call, as_json, from_json

log = structlog.get_logger(__name__)

FILES = 4
FILE_BYTES = 2 << 20  # a pod's start takes about 6 kB

_NAME = re.compile(r"([0-9]{8})\.jsonl")


class Journal:
    """The newest calls of this node. `write` belongs to one thread at a time; `read` to anyone.

    Args:
        directory: made when the first call is written.
    """

    def __init__(self, directory: Path, *, files: int = FILES, file_bytes: int = FILE_BYTES) -> None:
        self._directory = directory
        self._files = files
        self._file_bytes = file_bytes
        self._fd = -1
        self._used_bytes = 0

    def write(self, calls: Iterable[Call]) -> None:
        """Append calls, and drop the oldest file when there are too many. Raises: OSError; then nothing,
        or a part that readers pass over, was written."""
        data = b""
        for call in calls:
            line = json.dumps(as_json(call), separators=(",", ":")).encode() + b"\n"
            if data and len(data) + len(line) > self._file_bytes:
                self._append(data)
                data = b""
            data += line
        if data:
            self._append(data)

    def _append(self, data: bytes) -> None:
        if self._fd < 0 or self._used_bytes + len(data) > self._file_bytes:
            self._open(len(data))
        self._used_bytes += len(data)
        written = os.write(self._fd, data)
        if written < len(data):  # a full disk: the next line must begin on a line of its own
            self._start_anew()

    def _open(self, wanted_bytes: int) -> None:
        """Go on with the newest file if it has room and ends with a line, else begin one."""
        fresh = self._fd < 0
        self._start_anew()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = self._names()
        newest = names[-1] if names else None
        if fresh and newest is not None and _whole(newest):
            size = newest.stat().st_size
            if size + wanted_bytes <= self._file_bytes:
                self._fd = os.open(newest, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
                self._used_bytes = size
                return
        number = int(newest.stem) + 1 if newest is not None else 1
        for old in names[: max(0, len(names) - self._files + 1)]:
            old.unlink(missing_ok=True)
        path = self._directory / f"{number:08d}.jsonl"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._used_bytes = 0

    def _start_anew(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, about: Sequence[str] = (), *, newest: int | None = None) -> list[Call]:
        """All calls, or those whose lines have one of these texts; parts of a call are separate.

        Args:
            newest: look at so many files only, None = all.

        A line that cannot be read is passed over.
        """
        needles = [json.dumps(text)[1:-1].encode() for text in about]
        return list(
            self._calls(lambda line: not needles or any(needle in line for needle in needles), newest)
        )

    def _calls(self, wanted: Callable[[bytes], bool], newest: int | None) -> Iterator[Call]:
        names = self._names()
        for path in names if newest is None else names[-newest:]:
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # dropped meanwhile
                continue
            for line in data.splitlines():
                if not wanted(line):
                    continue
                try:
                    yield from_json(json.loads(line))
                except (ValueError, TypeError, KeyError):
                    log.debug("a line of the journal cannot be read", path=str(path))

    def _names(self) -> list[Path]:
        try:
            return sorted(path for path in self._directory.iterdir() if _NAME.fullmatch(path.name))
        except FileNotFoundError:
            return []

    def close(self) -> None:
        """Idempotent."""
        self._start_anew()


def _whole(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not size:
            return True
        file.seek(size - 1)
        return file.read(1) == b"\n"
