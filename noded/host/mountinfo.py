"""What is mounted where: `/proc/self/mountinfo` (proc(5)) as values."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from noded.host import statx

_OCTAL = re.compile(r"\\([0-7]{3})")
_MANGLED = re.compile(r"[ \t\n\\]")


class MountEntry(NamedTuple):
    """One line. `shared` and `master` are peer group ids, 0 for none."""

    mount_id: int
    parent_id: int
    root: str
    mount_point: str
    options: frozenset[str]
    shared: int
    master: int
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def propagation(self) -> str:
        """`shared`, `slave` or `private`; a shared slave counts as shared."""
        if self.shared:
            return "shared"
        return "slave" if self.master else "private"


def unescape(field: str) -> str:
    """Undo the octal escapes that the kernel writes for space, tab, newline and backslash."""
    if "\\" not in field:
        return field
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), field)


def escape(field: str) -> str:
    """Write a path as mountinfo shows it."""
    return _MANGLED.sub(lambda match: f"\\{ord(match[0]):03o}", field)


def parse_line(line: str) -> MountEntry:
    """Parse one line, without its newline.

    Raises: ValueError when it is not a mountinfo line.
    """
    fields = line.split(" ")
    separator = fields.index("-", 6)
    peers = dict(tag.partition(":")[::2] for tag in fields[6:separator])
    fstype, source, super_options = fields[separator + 1 : separator + 4]
    return MountEntry(
        mount_id=int(fields[0]),
        parent_id=int(fields[1]),
        root=unescape(fields[3]),
        mount_point=unescape(fields[4]),
        options=frozenset(fields[5].split(",")),
        shared=int(peers.get("shared", 0)),
        master=int(peers.get("master", 0)),
        fstype=fstype,
        source=unescape(source),
        super_options=frozenset(super_options.split(",")),
    )


def parse_mountinfo(text: str) -> list[MountEntry]:
    """Parse the whole file, in its order: the order of mounting, parents before children."""
    return [parse_line(line) for line in text.split("\n") if line]


def read_mountinfo() -> str:
    """Return the daemon's mount table as text; bytes that are not UTF-8 survive as surrogates."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        return file.read()


def entries_mentioning(text: str, path: str) -> Iterator[MountEntry]:
    """Parse only the lines that contain `path`: a node with many pods has thousands of lines."""
    needle = escape(path)
    if needle not in text:
        return iter(())
    return (parse_line(line) for line in text.split("\n") if needle in line)


def canonical(path: Path) -> str:
    """Return the path as mountinfo would show a mount on it: parents resolved, the last part not."""
    absolute = os.path.normpath(os.path.join(os.getcwd(), path))
    parent, name = os.path.split(absolute)
    return os.path.join(os.path.realpath(parent), name)


def is_mountpoint(path: Path) -> bool:
    """Tell whether something is mounted exactly on `path`, without waiting for a file server there."""
    answer = statx.is_mount_root(path)
    if answer is not None:
        return answer
    wanted = canonical(path)
    return any(entry.mount_point == wanted for entry in entries_mentioning(read_mountinfo(), wanted))


def mounts_below(path: Path) -> list[Path]:
    """Return the mount points strictly below `path`, in an order in which they can be unmounted."""
    return below(read_mountinfo(), canonical(path))


def below(text: str, path: str) -> list[Path]:
    """Pure part of `mounts_below`: `text` is a mountinfo file, `path` canonical."""
    prefix = path.rstrip("/") + "/"
    points = [
        Path(entry.mount_point)
        for entry in entries_mentioning(text, prefix)
        if entry.mount_point.startswith(prefix) and entry.mount_point != path
    ]
    return points[::-1]


def holder(table: Sequence[MountEntry], path: str) -> MountEntry | None:
    """Return the visible mount that holds a canonical path, None for an empty table.

    Follows the mounts as path resolution does, so mounts hidden under later ones do not count.
    """
    ids = {entry.mount_id for entry in table}
    children: dict[int, list[MountEntry]] = {}
    for entry in table:
        if path == entry.mount_point or path.startswith(entry.mount_point.rstrip("/") + "/"):
            # The parent of the root mount is not in the table, or is itself.
            parent = entry.parent_id if entry.parent_id in ids and entry.parent_id != entry.mount_id else 0
            children.setdefault(parent, []).append(entry)
    current: MountEntry | None = None
    key = 0
    while below_it := children.pop(key, None):
        current = min(below_it, key=lambda entry: len(entry.mount_point))
        key = current.mount_id
    return current


def propagation(path: Path) -> str:
    """Return `shared`, `slave` or `private` for the mount that contains `path`.

    Raises: OSError when the path cannot be opened.
    """
    # By mount id, not by the longest prefix: a mount may be hidden under a later one.
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        fdinfo = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    found = re.search(r"^mnt_id:\s*(\d+)$", fdinfo, re.MULTILINE)
    mount_id = int(found[1]) if found else -1
    for entry in parse_mountinfo(read_mountinfo()):
        if entry.mount_id == mount_id:
            return entry.propagation
    return "private"
