"""How much the tests do: little in continuous integration, all of it under `make prove`."""

from __future__ import annotations

import os


def full_counts() -> bool:
    """Whether every count is the full one (NODED_PROVE=1)."""
    return os.environ.get("NODED_PROVE", "") not in ("", "0")
