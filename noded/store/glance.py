"""What lists need of the database, read before the rest of noded is there.

A daemon that starts answers lists from this until its core has loaded everything (`noded.daemon`). It
takes the file as it is: whatever is wrong with it, the core will say. The connection stays open for the
core: one that closes would move the log of a killed daemon into the file and delete it, and with it the
blocks that a full disk needs for removals (`noded.store.database`).
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import NamedTuple

from noded.store.connection import connect

# The schemas whose rows this module understands; any other file is left to the core.
_OLDEST_SCHEMA, _NEWEST_SCHEMA = 1, 2
_BUSY_SECONDS = 0.0  # nobody else has it open, and if so it is not worth a wait


class SandboxRow(NamedTuple):
    """One sandbox. `request` is the RunPodSandboxRequest."""

    id: str
    handler: str
    request: bytes
    created_at_ns: int
    intent: str
    boot_id: str


class ContainerRow(NamedTuple):
    """One container. `request` is the CreateContainerRequest; `exited`: an exit is on record."""

    id: str
    sandbox_id: str
    request: bytes
    created_at_ns: int
    intent: str
    boot_id: str
    image_id: str
    exited: bool


class Glance(NamedTuple):
    """All rows at one moment, oldest first."""

    sandboxes: tuple[SandboxRow, ...]
    containers: tuple[ContainerRow, ...]


class Opened(NamedTuple):
    """An open database: `seen` is None when its schema is another."""

    connection: sqlite3.Connection
    seen: Glance | None


def glance(path: Path) -> Opened | None:
    """Open the file and read all sandboxes and containers; None when it is missing, damaged or held.

    Blocks for some milliseconds. The connection is the caller's to pass on or to close.
    """
    if not path.exists():
        return None
    try:
        connection = connect(path, _BUSY_SECONDS)
    except sqlite3.Error:
        return None
    try:
        connection.execute("BEGIN")  # both tables as they were at one moment
        seen = _read(connection)
        connection.execute("COMMIT")
        return Opened(connection, seen)
    except (sqlite3.Error, ValueError, KeyError, TypeError):
        connection.close()
        return None


def _read(connection: sqlite3.Connection) -> Glance | None:
    (schema,) = connection.execute("SELECT max(version) FROM migrations").fetchone()
    if schema is None or not _OLDEST_SCHEMA <= schema <= _NEWEST_SCHEMA:
        return None
    sandboxes = connection.execute(
        "SELECT id, handler, request, created_at_ns, intent, boot_id FROM sandboxes ORDER BY created_at_ns"
    ).fetchall()
    containers = connection.execute(
        "SELECT id, sandbox_id, request, created_at_ns, intent, boot_id, facts FROM containers "
        "ORDER BY created_at_ns"
    ).fetchall()
    return Glance(tuple(SandboxRow(*row) for row in sandboxes), tuple(_container(*row) for row in containers))


def _container(
    id_: str, sandbox_id: str, request: bytes, created_at_ns: int, intent: str, boot_id: str, facts: str
) -> ContainerRow:
    known = json.loads(facts)
    return ContainerRow(
        id=id_,
        sandbox_id=sandbox_id,
        request=request,
        created_at_ns=created_at_ns,
        intent=intent,
        boot_id=boot_id,
        image_id=known["image_id"],
        exited=known.get("exited") is not None,
    )
