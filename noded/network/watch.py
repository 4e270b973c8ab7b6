"""Notices changes in directories that may be missing, deleted, recreated, or behind a symlink.

Each directory is watched together with its nearest existing ancestor: the one tells what changes
inside, the other when the directory itself comes, goes or is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import structlog

from noded.errors import FailedPrecondition, NodedError, NotFound
from noded.host import inotify

log = structlog.get_logger(__name__)

# The same mask everywhere: two paths may be one inode, which has only one watch.
_MASK = (
    inotify.IN_ATTRIB
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
    | inotify.IN_ONLYDIR
)


class DirectoryWatch:
    """Watches a set of directories for any change of their entries. Owns its inotify descriptor."""

    def __init__(self) -> None:
        self._inotify = inotify.Inotify()
        # What matters of each watch: these names in it, or everything (None).
        self._interest: dict[int, frozenset[str] | None] = {}

    def close(self) -> None:
        self._inotify.close()

    def arm(self, directories: Iterable[Path]) -> None:
        """Watch exactly these directories from now on. Call it before every scan of them.

        A directory that cannot be watched is logged and left out.
        """
        interest: dict[int, frozenset[str] | None] = {}
        for directory in directories:
            try:
                self._arm_one(directory, interest)
            except NodedError as error:
                log.warning("directory_not_watched", directory=str(directory), error=str(error))
        for wd in self._interest.keys() - interest.keys():
            self._inotify.unwatch(wd)
        self._interest = interest

    async def changed(self) -> None:
        """Return when something changed in what is watched; many changes at once return once.

        Cancellation: safe.
        """
        while True:
            events = await self._inotify.read()
            if any(self._matters(event.wd, event.name) for event in events):
                return

    def _arm_one(self, directory: Path, interest: dict[int, frozenset[str] | None]) -> None:
        here = self._watch(directory)
        if here is not None:
            interest[here] = None
        for ancestor in directory.parents:
            wd = self._watch(ancestor)
            if wd is None:
                continue
            child = directory.relative_to(ancestor).parts[0]
            known = interest.get(wd, frozenset())
            interest[wd] = None if known is None else known | {child}
            if here is None and (ancestor / child).is_dir():
                # It came into being between the two looks: look again, one level deeper now.
                self._arm_one(directory, interest)
            return

    def _watch(self, directory: Path) -> int | None:
        try:
            return self._inotify.watch(directory, _MASK)
        except (NotFound, FailedPrecondition):  # missing, or no directory
            return None

    def _matters(self, wd: int, name: str) -> bool:
        if wd not in self._interest:
            # The queue overflowed (wd -1), or the watch was dropped meanwhile.
            return wd < 0
        names = self._interest[wd]
        # Without a name the event is about the watched directory itself.
        return names is None or not name or name in names
