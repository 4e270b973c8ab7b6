"""Changes of a record that go with its next commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Pending:
    """What a daemon that dies before the next commit can do without. One commit at a time.

    A change that is noted while a commit is on its way to the disk waits for the one after it.
    """

    __slots__ = ("_changes",)

    def __init__(self) -> None:
        self._changes: dict[str, Any] = {}

    def note(self, changes: Mapping[str, Any]) -> None:
        """Change fields with the next commit."""
        self._changes.update(changes)

    def get(self, field: str, recorded: Any) -> Any:
        """The field as it will be, or as it is recorded."""
        return self._changes.get(field, recorded)

    def taken(self) -> dict[str, Any]:
        """What a commit that begins now takes along."""
        return dict(self._changes)

    def committed(self, taken: Mapping[str, Any]) -> None:
        """Drop what the commit took, but for fields that were noted anew meanwhile."""
        for field, value in taken.items():
            if self._changes.get(field) is value:
                del self._changes[field]
