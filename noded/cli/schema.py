"""`noded schema`: what the JSON of a command looks like, as JSON Schema."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from noded.cli import grammar
from noded.cli.documents.node import Schemas
from noded.cli.documents.schema import find
from noded.cli.documents.schema import schema as schema_of
from noded.cli.table import print_json, print_table
from noded.errors import NotFound


def schema(arguments: argparse.Namespace) -> int:
    """Print the schema of one command's JSON, or list the commands that have one. Raises NotFound."""
    known = documents()
    if not arguments.words:
        listed: Schemas = [{"command": name, "about": about} for name, (_, about) in known.items()]
        if arguments.json:
            print_json(listed)
        else:
            print_table(("COMMAND", "WHAT IT DOES"), [(each["command"], each["about"]) for each in listed])
        return 0
    name = " ".join(arguments.words)
    if name not in known:
        raise NotFound(f"no command {name!r} prints JSON: `noded schema` lists those that do")
    print_json(schema_of(find(known[name][0]), f"noded {name} --json"))
    return 0


def documents() -> dict[str, tuple[str, str]]:
    """Of each command with --json the type of its document ("module:Name") and what the command does."""
    return {" ".join(path): (document, about) for path, document, about in _walk(grammar.parser(), ())}


def _walk(
    parser: argparse.ArgumentParser, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    document = parser.get_default(grammar.DOCUMENT)
    if document:
        yield path, document, (parser.description or "").splitlines()[0].rstrip(".")
    for action in parser._actions:  # argparse has no public way to ask for them
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _walk(inner, (*path, name))
