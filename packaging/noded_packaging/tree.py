"""What a package installs, as a value: paths with content and mode. Owner is always root."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    content: bytes
    mode: int = 0o644


class Tree:
    """Files and directories by absolute path; parents come by themselves."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.directories: set[str] = set()

    def add(self, path: str, content: bytes | str, *, executable: bool = False) -> None:
        """Add a file. Raises: ValueError when another file is there with other content."""
        data = content.encode() if isinstance(content, str) else content
        file = File(data, 0o755 if executable else 0o644)
        if self.files.setdefault(path, file) != file:
            raise ValueError(f"{path}: two files want this place")
        self.add_directory(str(PurePosixPath(path).parent))

    def add_compressed(self, path: str, content: bytes | str) -> None:
        """Add `path`.gz: no name and no time inside, so that the same content gives the same bytes."""
        data = content.encode() if isinstance(content, str) else content
        self.add(f"{path}.gz", gzip.compress(data, 9, mtime=0))

    def add_directory(self, path: str) -> None:
        """Add a directory and those above it."""
        place = PurePosixPath(path)
        self.directories |= {str(each) for each in (place, *place.parents) if str(each) != "/"}

    def entries(self) -> Iterator[tuple[str, File | None]]:
        """Every path, sorted, None for a directory: a directory comes before what is in it."""
        for path in sorted({*self.files, *self.directories}):
            yield path, self.files.get(path)

    @property
    def size_bytes(self) -> int:
        return sum(len(file.content) for file in self.files.values())
