"""Rows of containers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from noded.model.container import ContainerConfig, ContainerKey
from noded.model.lifecycle import ContainerIntent
from noded.model.records import ContainerRecord, container_facts
from noded.store.database import Database

_COLUMNS = "id, sandbox_id, name, attempt, request, created_at_ns, intent, boot_id, facts"


class ContainerRows:
    """Durable container records; `decode` as in `SandboxRows`."""

    def __init__(self, database: Database, decode: Callable[[bytes], ContainerConfig]) -> None:
        self._database = database
        self._decode = decode

    async def insert(self, record: ContainerRecord) -> None:
        """Commit a new row. Raises sqlite3.IntegrityError when the key is taken."""
        key = record.key
        row = (
            record.id, key.sandbox_id, key.name, key.attempt, record.request,
            record.created_at_ns, record.intent.value, record.boot_id, record.facts(),
        )  # fmt: skip

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT INTO containers ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)", row)

        await self._database.run(work, adds=True)

    async def update(self, record: ContainerRecord) -> None:
        """Commit changed intent and facts."""
        row = (record.intent.value, record.boot_id, record.facts(), record.id)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE containers SET intent=?, boot_id=?, facts=? WHERE id=?", row)

        await self._database.run(work)

    async def delete(self, container_id: str) -> None:
        """Forget the row. Idempotent."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM containers WHERE id=?", (container_id,))

        await self._database.run(work)

    async def load(self) -> list[ContainerRecord]:
        """All rows, oldest first."""

        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(f"SELECT {_COLUMNS} FROM containers ORDER BY created_at_ns").fetchall()

        return [self._record(row) for row in await self._database.run(work)]

    def _record(self, row: tuple[object, ...]) -> ContainerRecord:
        identity, sandbox_id, name, attempt, request, created_at_ns, intent, boot_id, facts = row
        assert isinstance(request, bytes)
        assert isinstance(attempt, int)
        assert isinstance(created_at_ns, int)
        return ContainerRecord(
            id=str(identity),
            key=ContainerKey(str(sandbox_id), str(name), attempt),
            request=request,
            config=self._decode(request),
            created_at_ns=created_at_ns,
            boot_id=str(boot_id),
            intent=ContainerIntent(str(intent)),
            **container_facts(str(facts)),
        )
