"""`noded config`: what the configuration is, could be, and whether it is right."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from noded import config_text, settings
from noded.cli.documents.node import ConfigChecked, ConfigDefaults, Configuration
from noded.cli.table import print_json
from noded.errors import NodedError


def show(arguments: argparse.Namespace) -> int:
    """Print the configuration in effect as TOML."""
    text = config_text.render(settings.load(Path(arguments.config)))
    if arguments.json:
        found: Configuration = tomllib.loads(text)
        print_json(found)
    else:
        print(text, end="")
    return 0


def default(arguments: argparse.Namespace) -> int:
    """Print every key with its default and documentation as TOML."""
    if arguments.json:
        keys: ConfigDefaults = [
            {"key": key, "default": tomllib.loads(f"value = {shown}")["value"], "meaning": meaning}
            for key, shown, meaning in config_text.defaults()
        ]
        print_json(keys)
        return 0
    print(config_text.render_default(), end="")
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Load the files; an error names file, line and key."""
    path = Path(arguments.config)
    if arguments.json:
        return _check_json(path)
    settings.load(path)
    print(f"{path}: configuration is valid" if path.exists() else f"no {path}: the defaults are in force")
    return 0


def _check_json(path: Path) -> int:
    problem = ""
    try:
        settings.load(path)
    except NodedError as error:
        problem = str(error)
    found: ConfigChecked = {
        "path": str(path),
        "exists": path.exists(),
        "valid": not problem,
        "problem": problem,
    }
    print_json(found)
    return 1 if problem else 0
