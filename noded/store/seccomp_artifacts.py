"""Rows of seccomp profiles that came from registries."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import astuple, dataclass

from noded.store.database import Database

_COLUMNS = "reference, namespace, manifest_digest, blob_digest, used_at_ns"


@dataclass(frozen=True, slots=True)
class SeccompArtifact:
    """What a reference stood for when it was last pulled for pods of a namespace.

    Args:
        reference: canonical, with its registry and tag or digest.
        manifest_digest: of the artifact, "" never.
        blob_digest: of the profile.
        used_at_ns: when a container was last made with it.
    """

    reference: str
    namespace: str
    manifest_digest: str
    blob_digest: str
    used_at_ns: int

    @property
    def key(self) -> tuple[str, str]:
        return self.reference, self.namespace


class SeccompArtifactRows:
    """The table `seccomp_artifacts`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> list[SeccompArtifact]:
        def read(connection: sqlite3.Connection) -> list[tuple[str, str, str, str, int]]:
            return connection.execute(f"SELECT {_COLUMNS} FROM seccomp_artifacts").fetchall()

        return [SeccompArtifact(*row) for row in await self._database.run(read)]

    async def change(
        self, put: Collection[SeccompArtifact], forget: Collection[SeccompArtifact] = ()
    ) -> None:
        """Store some and forget others in one transaction."""

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany(
                "DELETE FROM seccomp_artifacts WHERE reference = ? AND namespace = ?",
                [one.key for one in forget],
            )
            connection.executemany(
                f"INSERT OR REPLACE INTO seccomp_artifacts ({_COLUMNS}) VALUES (?,?,?,?,?)",
                [astuple(one) for one in put],
            )

        await self._database.run(write)
