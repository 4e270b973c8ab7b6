"""Writing the TOML that a test's daemon is configured with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def dumps(settings: Mapping[str, Any]) -> str:
    """TOML of nested mappings, lists, strings, paths, numbers and booleans."""
    return "\n".join(_table((), settings)) + "\n"


def _table(path: tuple[str, ...], table: Mapping[str, Any]) -> list[str]:
    lines = [f"[{'.'.join(_key(part) for part in path)}]"] if path else []
    lines += [
        f"{_key(key)} = {_value(value)}" for key, value in table.items() if not isinstance(value, Mapping)
    ]
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines += _table((*path, key), value)
    return lines


def _key(key: str) -> str:
    bare = key.isascii() and key.replace("_", "").replace("-", "").isalnum()
    return key if bare else json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and booleans are TOML's
