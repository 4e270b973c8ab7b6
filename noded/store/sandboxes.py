"""Rows of pod sandboxes. The UNIQUE key is the name reservation."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from noded.model.lifecycle import SandboxIntent
from noded.model.pod import PodConfig, SandboxKey
from noded.model.records import SandboxRecord, sandbox_facts
from noded.store.database import Database

_COLUMNS = "id, namespace, name, uid, attempt, handler, request, created_at_ns, intent, boot_id, facts"


class SandboxRows:
    """Durable sandbox records.

    Args:
        decode: turns the stored CRI request back into a `PodConfig`; given by the daemon, since
            the protobuf lives above this layer.
    """

    def __init__(self, database: Database, decode: Callable[[bytes], PodConfig]) -> None:
        self._database = database
        self._decode = decode

    async def insert(self, record: SandboxRecord) -> None:
        """Commit a new row. Raises sqlite3.IntegrityError when the key is taken."""
        key = record.key
        row = (
            record.id, key.namespace, key.name, key.uid, key.attempt, record.handler, record.request,
            record.created_at_ns, record.intent.value, record.boot_id, record.facts(),
        )  # fmt: skip

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT INTO sandboxes ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)

        await self._database.run(work, adds=True)

    async def update(self, record: SandboxRecord) -> None:
        """Commit changed intent and facts."""
        row = (record.intent.value, record.boot_id, record.facts(), record.id)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE sandboxes SET intent=?, boot_id=?, facts=? WHERE id=?", row)

        await self._database.run(work)

    async def delete(self, sandbox_id: str) -> None:
        """Forget the row. Idempotent."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM sandboxes WHERE id=?", (sandbox_id,))

        await self._database.run(work)

    async def load(self) -> list[SandboxRecord]:
        """All rows, oldest first."""

        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(f"SELECT {_COLUMNS} FROM sandboxes ORDER BY created_at_ns").fetchall()

        return [self._record(row) for row in await self._database.run(work)]

    def _record(self, row: tuple[object, ...]) -> SandboxRecord:
        identity, namespace, name, uid, attempt, handler, request, created_at_ns, intent, boot_id, facts = row
        assert isinstance(request, bytes)
        assert isinstance(attempt, int)
        assert isinstance(created_at_ns, int)
        return SandboxRecord(
            id=str(identity),
            key=SandboxKey(str(namespace), str(name), str(uid), attempt),
            handler=str(handler),
            request=request,
            config=self._decode(request),
            created_at_ns=created_at_ns,
            boot_id=str(boot_id),
            intent=SandboxIntent(str(intent)),
            **sandbox_facts(str(facts)),
        )
