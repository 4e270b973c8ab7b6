"""The whole command line as one grammar. Imports only argparse and the like: `noded --version` is instant.

A command is declared in a module of this package: what it is called, what it takes, an example, and
its function as "module:function", which `noded.cli.main` imports when the command is chosen. Manual
pages and completions are made from the same declarations. A new family of commands is a new module
with a function `declare`, and its name in `FAMILIES`.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

# The default of a parsed command that names the type of its JSON, "module:Name" of noded.cli.documents.
DOCUMENT = "json_document"

# In the order of `noded --help`.
FAMILIES = (
    "daemon",
    "node",
    "pods",
    "trying",
    "timeline",
    "images",
    "seccomp",
    "upkeep",
    "demo",
)


def parser(families: Sequence[str] = FAMILIES) -> argparse.ArgumentParser:
    """The parser of the `noded` program; a parsed command has `run`, "module:function".

    Args:
        families: whose commands it knows; fewer are quicker to declare.
    """
    top = argparse.ArgumentParser(
        prog="noded",
        description="Kubernetes container runtime daemon: CRI v1 with runtime handlers as plugins.",
        epilog="Environment: NODED_ADDRESS, the daemon's socket.",
    )
    top.add_argument("--version", action="store_true", help="print the version of this program and exit")
    top.add_argument(
        "--debug", action="store_true", default=False, help="show a traceback when a command fails"
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for family in families:
        importlib.import_module(f"{__name__}.{family}").declare(commands)
    return top
