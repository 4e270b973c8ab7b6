"""What commands print, held to the schemas that they are documented with."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from noded.cli.documents.schema import find, schema
from noded.cli.schema import documents


def documented(command: str, text: str) -> Any:
    """Read what a command printed with --json; it must be as its schema says, without a key more."""
    document, _ = documents()[command]
    read = json.loads(text)
    jsonschema.Draft202012Validator(schema(find(document), command, closed=True)).validate(read)
    return read
