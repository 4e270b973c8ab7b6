"""The `info` map of verbose answers: one JSON text under the key that crictl shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def info(details: Mapping[str, Any]) -> dict[str, str]:
    """Encode details. What JSON does not know, e.g. a path, appears as its text."""
    return {"info": json.dumps(details, default=str, separators=(",", ":"))}
