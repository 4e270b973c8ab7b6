"""Rows of images and leases."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

from noded.model.image import Artifact, Image, ImageConfig, LayerRef
from noded.store.database import Database


def encode(image: Image) -> str:
    """The stored form of an image."""
    return json.dumps(asdict(image), separators=(",", ":"))


def decode(record: str) -> Image:
    """An image from its stored form. Keys that this version does not know are ignored.

    Raises: ValueError when it is not one.
    """
    try:
        stored = _known(json.loads(record), Image)
        stored["config"] = ImageConfig(**_with_tuples(_known(stored["config"], ImageConfig)))
        stored["layers"] = tuple(LayerRef(**_known(layer, LayerRef)) for layer in stored["layers"])
        if stored.get("artifact") is not None:
            stored["artifact"] = Artifact(**_known(stored["artifact"], Artifact))
        return Image(**_with_tuples(stored))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an image record: {error!r}") from None


class ImageRows:
    """The `images` and `leases` tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def load(self) -> tuple[dict[str, str], list[tuple[str, str]]]:
        """(stored image records by id, leases as (digest, owner))."""

        def read(connection: sqlite3.Connection) -> tuple[dict[str, str], list[tuple[str, str]]]:
            images = dict(connection.execute("SELECT id, record FROM images").fetchall())
            return images, connection.execute("SELECT digest, owner FROM leases").fetchall()

        return await self._database.run(read)

    async def change(self, put: Collection[Image], delete: Collection[str] = ()) -> None:
        """Store and delete images in one transaction."""
        rows = [(image.id, encode(image)) for image in put]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM images WHERE id = ?", [(image_id,) for image_id in delete])
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?)", rows)

        await self._database.run(write)

    async def add_leases(self, digests: Collection[str], owner: str) -> None:
        """Record that `owner` needs blobs or layers; repeating it is success."""
        rows = [(digest, owner, time.time_ns()) for digest in digests]

        def write(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT OR IGNORE INTO leases VALUES (?, ?, ?)", rows)

        await self._database.run(write)

    async def delete_leases(self, owner: str | None) -> None:
        """Forget the leases of one owner, or of all (None)."""

        def write(connection: sqlite3.Connection) -> None:
            if owner is None:
                connection.execute("DELETE FROM leases")
            else:
                connection.execute("DELETE FROM leases WHERE owner = ?", (owner,))

        await self._database.run(write)


def _known(stored: Mapping[str, Any], kind: type) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in stored.items() if name in names}


def _with_tuples(stored: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}
