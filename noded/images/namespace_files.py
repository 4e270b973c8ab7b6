"""Files that an administrator writes for the pods of one Kubernetes namespace, found by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from noded.errors import InvalidArgument

_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")


def is_namespace(name: str) -> bool:
    """Whether it may be the name of a namespace: it comes from a client and must not lead elsewhere."""
    return bool(name) and _CHARACTERS.issuperset(name)


def namespace_file(directory: Path, namespace: str, suffix: str = ".json") -> Path:
    """DIRECTORY/NAMESPACE.json, whether or not it exists.

    Raises: InvalidArgument for what is no name of a namespace.
    """
    if not is_namespace(namespace):
        raise InvalidArgument(f"{namespace!r} is no name of a Kubernetes namespace")
    return directory / f"{namespace}{suffix}"
