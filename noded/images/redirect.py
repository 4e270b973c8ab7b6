"""Entries that a layer puts below a symbolic link of the layers under it.

A layer with `lib/foo` and no entry for `lib`, above a layer where `lib` links to `usr/lib`, means
`usr/lib/foo`: containerd and umoci extract into the merged tree and follow the link. Extracted on its
own the layer has a directory `lib`, which would hide the link. So what is in it is moved to where the link
leads, and the directory goes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from noded.host import beneath
from noded.images.filesystem import OPEN_DIRECTORY
from noded.images.inherit import OPAQUE, is_below, is_opaque

_IN_TREE = beneath.RESOLVE_IN_ROOT | beneath.RESOLVE_NO_SYMLINKS | beneath.RESOLVE_NO_XDEV
_HIDING = (errno.ENOTDIR, errno.ELOOP)
_LINKS_LIMIT = 40  # the kernel's own (path_resolution(7))


@dataclass(frozen=True, slots=True)
class Shape:
    """What the extraction told of a tree; see `UnpackReport`."""

    implied: tuple[str, ...]
    opaque: tuple[str, ...]


def follow_lower_links(tree: Path, shape: Shape, lowers: Sequence[Path]) -> Shape:
    """Move what lies in implied directories that are links below; returns the shape afterwards.

    Args:
        tree: of the layer, which nobody else changes. Its names are not trusted: nothing here follows
            a link but by looking at it.
        lowers: trees of the layers below, the nearest first.
    """
    if not lowers:
        return shape
    return _Redirection(tree, shape, lowers).run()


class _Redirection:
    def __init__(self, tree: Path, shape: Shape, lowers: Sequence[Path]) -> None:
        self._tree, self._lowers = tree, lowers
        self._implied = dict.fromkeys(shape.implied)
        self._opaque = dict.fromkeys(shape.opaque)

    def run(self) -> Shape:
        waiting = deque(path for path in self._implied if path)
        while waiting:
            path = waiting.popleft()
            if path not in self._implied or is_below(path, self._opaque):
                continue
            found = _shown(self._lowers, path)
            if found is None or not stat.S_ISLNK(found[0]):
                continue
            target = self._resolve(path)
            if target is None or target == path or target.startswith(f"{path}/"):
                continue  # the link leads nowhere: the directory hides it
            waiting.extend(self._move(path, target))
        return Shape(tuple(self._implied), tuple(self._opaque))

    def _resolve(self, path: str) -> str | None:
        """Where the link at `path` leads in the merged tree, None = to no directory."""
        waiting, here, links = deque(path.split("/")), list[str](), 0
        while waiting:
            part = waiting.popleft()
            if part in ("", "."):
                continue
            if part == "..":
                del here[-1:]
                continue
            step = "/".join((*here, part))
            # The layer's own directory in the link's place is not what is asked for.
            layers = self._lowers if step == path else (self._tree, *self._lowers)
            found = _shown(layers, step)
            if found is not None and stat.S_ISLNK(found[0]):
                links += 1
                if links > _LINKS_LIMIT:
                    return None
                if found[1].startswith("/"):
                    here.clear()
                waiting.extendleft(reversed(found[1].split("/")))
                continue
            if found is not None and not stat.S_ISDIR(found[0]):
                return None
            here.append(part)
        return "/".join(here)

    def _move(self, path: str, target: str) -> list[str]:
        """Move what is in directory `path` into `target`; returns implied directories to look at."""
        top = os.open(self._tree, OPEN_DIRECTORY)
        try:
            try:
                source = beneath.openat2(top, os.fsencode(path), OPEN_DIRECTORY, _IN_TREE)
            except OSError:
                return []  # replaced by a later entry of the layer
            try:
                made = self._make(top, target)
                goal = beneath.openat2(top, os.fsencode(target) or b".", OPEN_DIRECTORY, _IN_TREE)
                try:
                    if is_opaque(source):
                        os.setxattr(goal, OPAQUE, b"y")
                        self._opaque[target] = None
                    _merge(source, goal)
                finally:
                    os.close(goal)
            finally:
                os.close(source)
            parent, _, name = path.rpartition("/")
            above = beneath.openat2(top, os.fsencode(parent) or b".", OPEN_DIRECTORY, _IN_TREE)
            try:
                os.rmdir(name, dir_fd=above)
            finally:
                os.close(above)
        finally:
            os.close(top)
        return [*made, *self._rename(path, target)]

    def _make(self, top: int, path: str) -> list[str]:
        """Make sure that the tree has a directory `path`, without links on it; returns the new ones."""
        made = []
        fd = os.dup(top)
        try:
            parts = path.split("/") if path else []
            for index, part in enumerate(parts):
                step = "/".join(parts[: index + 1])
                found = _stat(fd, part)
                if found is None or _is_whiteout(found):
                    if found is None:
                        made.append(step)
                        self._implied[step] = None
                    else:  # hide what is below, then show this
                        os.unlink(part, dir_fd=fd)
                        self._opaque[step] = None
                    os.mkdir(part, dir_fd=fd)
                    os.chmod(part, 0o755, dir_fd=fd)
                deeper = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
                if step in self._opaque:
                    os.setxattr(deeper, OPAQUE, b"y")
                os.close(fd)
                fd = deeper
        finally:
            os.close(fd)
        return made

    def _rename(self, path: str, target: str) -> list[str]:
        """Tell the directories below `path` by their new names."""
        del self._implied[path]
        moved = []
        for names in (self._implied, self._opaque):
            for name in [name for name in names if name == path or name.startswith(f"{path}/")]:
                del names[name]
                new = f"{target}{name[len(path) :]}".lstrip("/")
                names[new] = None
                if names is self._implied:
                    moved.append(new)
        return moved


def _merge(source: int, goal: int) -> None:
    """Move all names of one directory into another; what was moved wins over files, directories merge."""
    for name in os.listdir(source):
        try:
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=goal)
            continue
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR):
                raise
        ours, theirs = (os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode for fd in (source, goal))
        if stat.S_ISDIR(ours) and stat.S_ISDIR(theirs):
            below = os.open(name, OPEN_DIRECTORY, dir_fd=source)
            try:
                into = os.open(name, OPEN_DIRECTORY, dir_fd=goal)
                try:
                    _merge(below, into)
                finally:
                    os.close(into)
            finally:
                os.close(below)
            os.rmdir(name, dir_fd=source)
        elif stat.S_ISDIR(ours):
            os.unlink(name, dir_fd=goal)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=goal)
        else:
            os.unlink(name, dir_fd=source)  # a directory with something in it stays


def _shown(layers: Collection[Path], path: str) -> tuple[int, str] | None:
    """(mode, link target) of what the layers show at a path, None = nothing. Follows no link."""
    parent, _, name = path.rpartition("/")
    for layer in layers:
        fd = os.open(layer, OPEN_DIRECTORY)
        try:
            last = False
            for part in parent.split("/") if parent else ():
                last = last or is_opaque(fd)
                try:
                    deeper = os.open(part, OPEN_DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno in _HIDING:  # a file or whiteout hides whatever is below
                        return None
                    raise
                os.close(fd)
                fd = deeper
            else:
                last = last or is_opaque(fd)
                found = _stat(fd, name)
                if found is not None:
                    if _is_whiteout(found):
                        return None
                    link = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else ""
                    return found.st_mode, link
            if last:
                return None
        finally:
            os.close(fd)
    return None


def _stat(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_whiteout(found: os.stat_result) -> bool:
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0
