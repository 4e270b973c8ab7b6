"""The numbered migrations of the database. Append only: a released step never changes."""

from __future__ import annotations

from noded.store.database import Migration

MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        version=1,
        oldest_reader=1,
        noded_version="0.1.0",
        statements=(
            # A row exists until its last effect is undone; intent `owed` = clients think it is gone.
            """CREATE TABLE sandboxes (
                id TEXT PRIMARY KEY,
                namespace TEXT NOT NULL, name TEXT NOT NULL, uid TEXT NOT NULL, attempt INTEGER NOT NULL,
                handler TEXT NOT NULL,
                request BLOB NOT NULL,
                created_at_ns INTEGER NOT NULL,
                intent TEXT NOT NULL,
                boot_id TEXT NOT NULL,
                facts TEXT NOT NULL
            ) STRICT""",
            # The name reservation. A debt must not block a new pod of the same name.
            """CREATE UNIQUE INDEX sandbox_key ON sandboxes (namespace, name, uid, attempt)
                WHERE intent != 'owed'""",
            """CREATE TABLE containers (
                id TEXT PRIMARY KEY,
                sandbox_id TEXT NOT NULL REFERENCES sandboxes (id),
                name TEXT NOT NULL, attempt INTEGER NOT NULL,
                request BLOB NOT NULL,
                created_at_ns INTEGER NOT NULL,
                intent TEXT NOT NULL,
                boot_id TEXT NOT NULL,
                facts TEXT NOT NULL,
                UNIQUE (sandbox_id, name, attempt)
            ) STRICT""",
            # `record` is the JSON form of noded.model.image.Image.
            "CREATE TABLE images (id TEXT PRIMARY KEY, record TEXT NOT NULL) STRICT",
            # A lease keeps blobs and layers of a running pull from garbage collection.
            """CREATE TABLE leases (
                digest TEXT NOT NULL, owner TEXT NOT NULL, created_at_ns INTEGER NOT NULL,
                PRIMARY KEY (digest, owner)
            ) STRICT""",
        ),
    ),
    Migration(
        version=2,
        oldest_reader=1,
        noded_version="0.1.0",
        statements=(
            # What a reference of a seccomp profile stood for, so that no registry is needed again.
            """CREATE TABLE seccomp_artifacts (
                reference TEXT NOT NULL, namespace TEXT NOT NULL,
                manifest_digest TEXT NOT NULL, blob_digest TEXT NOT NULL,
                used_at_ns INTEGER NOT NULL,
                PRIMARY KEY (reference, namespace)
            ) STRICT""",
        ),
    ),
)
