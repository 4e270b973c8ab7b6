"""Reads an encrypted layer: its MAC is verified over the whole file before one byte is decrypted."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from noded.errors import DataLoss
from noded.wire.ocicrypt import LayerKey

CHUNK_BYTES: Final = 1 << 20

T = TypeVar("T")


async def with_plaintext(source_fd: int, key: LayerKey, what: str, work: Callable[[int], Awaitable[T]]) -> T:
    """Call `work` with a pipe that brings the plaintext.

    Args:
        source_fd: a file at the layer's start; it is not moved.
        what: names the layer in messages.

    Raises: DataLoss when the file is not what was encrypted with this key; what `work` raises.
    Cancellation: safe, as far as `work` is.
    """
    start = os.lseek(source_fd, 0, os.SEEK_CUR)
    await trio.to_thread.run_sync(_verify, source_fd, start, key, what)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    results: list[T] = []
    failure: Exception | None = None

    async def feed() -> None:
        try:
            await trio.to_thread.run_sync(_decrypt, source_fd, start, key, write_end)
        finally:
            os.close(write_end)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        try:
            results.append(await work(read_end))
        except Exception as error:
            failure = error
        finally:
            os.close(read_end)  # a thread that writes for nobody ends
    if failure is not None:
        raise failure
    return results[0]


def _verify(source_fd: int, at: int, key: LayerKey, what: str) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, hmac

    mac = hmac.HMAC(key.key, hashes.SHA256())
    while data := os.pread(source_fd, CHUNK_BYTES, at):
        trio.from_thread.check_cancelled()
        mac.update(data)
        at += len(data)
    try:
        mac.verify(key.mac)
    except InvalidSignature:
        raise DataLoss(f"{what} is damaged or was changed: its authentication code is wrong") from None


def _decrypt(source_fd: int, at: int, key: LayerKey, write_end: int) -> None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    try:
        context = Cipher(algorithms.AES(key.key), modes.CTR(key.nonce)).decryptor()
        while data := os.pread(source_fd, CHUNK_BYTES, at):
            at += len(data)
            rest = memoryview(context.update(data))
            while rest:
                rest = rest[os.write(write_end, rest) :]
    except OSError:  # the reader has failed and tells why, or misses the end and says so
        return
