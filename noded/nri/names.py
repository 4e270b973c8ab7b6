"""Names of plugins: `NN-NAME`, the index for the order of calls in front. Pure."""

from __future__ import annotations

import re
from typing import Final

_INDEX: Final = re.compile(r"[0-9]{2}")
_NAME: Final = re.compile(r"[a-zA-Z0-9_.+-]+")


def check_index(index: str) -> str:
    """Raises: ValueError."""
    if not _INDEX.fullmatch(index):
        raise ValueError(f"plugin index {index!r} must be two digits")
    return index


def check_name(name: str) -> str:
    """Raises: ValueError."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"plugin name {name!r} must be of letters, digits and the signs _ . + -")
    return name


def parse_file_name(name: str) -> tuple[str, str]:
    """Index and name of a plugin's program. Raises: ValueError."""
    index, dash, base = name.partition("-")
    if not dash:
        raise ValueError(f"plugin file {name!r} must be named NN-NAME")
    return check_index(index), check_name(base)
