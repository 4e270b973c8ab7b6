"""From the blob of a layer to a tree: decrypted if need be, and tried twice."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from pathlib import Path

import trio

from noded.host import files
from noded.images.decrypt.keys import DecryptionKeys
from noded.images.decrypt.stream import with_plaintext
from noded.images.unpack.client import Unpacker, ZygoteDied
from noded.images.unpack.limits import UnpackLimits, UnpackReport
from noded.model.image import LayerRef
from noded.wire.ocicrypt import ENCRYPTED, is_encrypted

_ATTEMPTS = 2  # a zygote that is killed once gets a second chance, where the blob can be read again


class Extraction:
    """How one node extracts layers."""

    def __init__(self, unpacker: Unpacker, limits: UnpackLimits, keys: DecryptionKeys) -> None:
        self._unpacker, self._limits, self._keys = unpacker, limits, keys

    async def run(self, layer: LayerRef, source_fd: int, tree: Path) -> UnpackReport:
        """Extract a blob into a new directory; a second time when the worker has died.

        Raises: as `Unpacker.unpack` and `DecryptionKeys.unlock`; `tree` is half written then.
        Cancellation: ends the extraction.
        """
        start = _position(source_fd)
        for attempt in range(1, _ATTEMPTS + 1):
            await trio.to_thread.run_sync(fresh_tree, tree)
            try:
                if is_encrypted(layer.media_type):
                    return await self._decrypted(layer, source_fd, tree)
                return await self._unpacker.unpack(
                    source_fd, tree, layer.media_type, layer.diff_id, self._limits
                )
            except ZygoteDied:
                if start is None or attempt == _ATTEMPTS:
                    raise
                os.lseek(source_fd, start, os.SEEK_SET)
        raise AssertionError("unreachable")

    async def _decrypted(self, layer: LayerRef, source_fd: int, tree: Path) -> UnpackReport:
        key = await trio.to_thread.run_sync(self._keys.unlock, layer)
        media_type = layer.media_type.removesuffix(ENCRYPTED)

        def unpack(fd: int) -> Awaitable[UnpackReport]:
            return self._unpacker.unpack(fd, tree, media_type, layer.diff_id, self._limits)

        return await with_plaintext(source_fd, key, f"layer {layer.blob_digest}", unpack)


def fresh_tree(tree: Path) -> None:
    """Make an empty directory in a directory of its own, in place of what is there. Blocks."""
    files.remove_tree(tree.parent)
    tree.parent.mkdir(mode=0o700)  # images hold set-id programs: no user of the node may reach them
    tree.mkdir()
    tree.chmod(0o755)


def _position(fd: int) -> int | None:
    """Where a file stands, None for a pipe."""
    try:
        return os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:
        return None
