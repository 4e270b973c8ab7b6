"""`noded config`: what the configuration is, could be, and whether it is right."""

from __future__ import annotations

import argparse
from pathlib import Path

from noded import settings


def show(arguments: argparse.Namespace) -> int:
    """Print the configuration in effect as TOML."""
    print(settings.render(settings.load(Path(arguments.config))), end="")
    return 0


def default(_arguments: argparse.Namespace) -> int:
    """Print every key with its default and documentation as TOML."""
    print(settings.render_default(), end="")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Load the files; an error names file, line and key."""
    path = Path(arguments.config)
    settings.load(path)
    print(f"{path}: configuration is valid" if path.exists() else f"no {path}: the defaults are in force")
    return 0
