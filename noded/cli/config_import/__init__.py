"""`noded config import`: what the configuration of CRI-O or containerd is in noded's terms.

Pure but for reading the files: `translate` takes their tables and gives a configuration and a report of
every key that was set, whether it maps, differs or has no equivalent. Nothing is left out silently.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noded import config_text, settings, tables
from noded.cli.config_import import containerd, crio
from noded.cli.config_import.translation import NONE, Translation
from noded.cli.documents.node import ConfigImported
from noded.cli.table import print_json, printable
from noded.errors import InvalidArgument


def translate(documents: Sequence[Mapping[str, Any]]) -> Translation:
    """Translate the files of one runtime, in their order; a later one replaces keys of an earlier one.

    Raises: InvalidArgument for files that are neither CRI-O's nor containerd's.
    """
    merged = _merged(documents)
    found = Translation()
    if "crio" in merged:
        crio.translate(found, merged)
    elif {"plugins", "grpc", "version"} & set(merged):
        containerd.translate(found, merged)
    else:
        raise InvalidArgument(
            "neither a crio.conf ([crio]) nor containerd's config.toml ([plugins], version)"
        )
    known = {"runc", "crun", *found.table.get("runtimes", {})}
    if (default := found.table.get("default_runtime", "runc")) not in known:
        del found.table["default_runtime"]
        found.row("default_runtime", default, NONE, "no handler of this name was translated")
    return found


def _merged(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            both = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = _merged([result[key], value]) if both else value
    return result


def toml(table: Mapping[str, Any]) -> str:
    """A table as a noded.toml with only what is in it, checked by noded's own parser.

    Raises: InvalidArgument when a value does not fit its key.
    """
    text = config_text.render_table(table)
    settings.interpret(tables.parse(text, "noded.toml"))
    return text


def import_(arguments: argparse.Namespace) -> int:
    """Print a noded.toml on standard output and the report on standard error; with --json both as one."""
    documents = []
    for name in arguments.files:
        try:
            documents.append(tomllib.loads(Path(name).read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{name}: not TOML: {error}") from None
    found = translate(documents)
    text = toml(found.table)
    if arguments.json:
        imported: ConfigImported = {
            "config": found.table,
            "toml": text,
            "report": [
                {"key": each.key, "value": each.value, "verdict": each.verdict, "note": each.note}
                for each in found.rows
            ],
        }
        print_json(imported)
        return 0
    print(text, end="")
    sys.stdout.flush()
    for row in found.rows:
        print(printable(f"{row.verdict:<8} {row.key} = {row.value}: {row.note}"), file=sys.stderr)
    return 0
