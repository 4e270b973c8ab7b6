"""Writes .deb files: an ar(5) archive of two tar archives. Spec: deb(5), deb-control(5).

Without dpkg-deb, so that the bytes depend on the input alone: every date is the project's, entries
are sorted, everything belongs to root.
"""

from __future__ import annotations

import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from noded_packaging.tree import File, Tree

_MAGIC = b"!<arch>\n"


@dataclass(frozen=True, slots=True)
class Control:
    """The control part: fields in their order, scripts and triggers by name."""

    fields: Mapping[str, str]
    scripts: Mapping[str, bytes] = field(default_factory=dict)
    triggers: bytes = b""
    conffiles: Sequence[str] = ()


def write(path: Path, control: Control, tree: Tree, epoch: int) -> None:
    """Write a package. `epoch` is the date of all that is in it, seconds since 1970."""
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": _compressed(_tar(_control_tree(control, tree), epoch)),
        "data.tar.xz": _compressed(_tar(tree, epoch)),
    }
    archive = _MAGIC + b"".join(_member(name, data, epoch) for name, data in members.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_bytes(archive)
    unfinished.replace(path)


def _control_tree(control: Control, tree: Tree) -> Tree:
    content = Tree()
    content.add("/control", _paragraph(control.fields))
    sums = [
        f"{hashlib.md5(file.content, usedforsecurity=False).hexdigest()}  {path[1:]}\n"
        for path, file in tree.entries()
        if file is not None and path not in control.conffiles
    ]
    content.add("/md5sums", "".join(sums))
    if control.conffiles:
        content.add("/conffiles", "".join(f"{path}\n" for path in control.conffiles))
    if control.triggers:
        content.add("/triggers", control.triggers)
    for name, script in control.scripts.items():
        content.add(f"/{name}", script, executable=True)
    return content


def _paragraph(fields: Mapping[str, str]) -> str:
    """One paragraph of deb822(5): further lines are indented, an empty one is a dot."""
    lines = []
    for name, value in fields.items():
        first, *rest = value.split("\n")
        lines += [f"{name}: {first}", *(f" {line or '.'}" for line in rest)]
    return "\n".join(lines) + "\n"


def _tar(tree: Tree, epoch: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path, file in [("/", None), *tree.entries()]:
            archive.addfile(*_tar_entry(path, file, epoch))
    return buffer.getvalue()


def _tar_entry(path: str, file: File | None, epoch: int) -> tuple[tarfile.TarInfo, io.BytesIO | None]:
    entry = tarfile.TarInfo("." + path)
    entry.mtime, entry.uname, entry.gname = epoch, "root", "root"
    if file is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        return entry, None
    entry.mode, entry.size = file.mode, len(file.content)
    return entry, io.BytesIO(file.content)


def _compressed(data: bytes) -> bytes:
    return lzma.compress(data, preset=6)


def _member(name: str, data: bytes, epoch: int) -> bytes:
    header = f"{name:<16}{epoch:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
    return header + data + (b"\n" if len(data) % 2 else b"")
