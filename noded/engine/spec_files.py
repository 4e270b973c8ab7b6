"""Reads the files with which an administrator adds to specs; for each container, since they may change."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import FailedPrecondition, InvalidArgument
from noded.spec.base import parse_base_spec
from noded.spec.default_mounts import parse_mounts
from noded.spec.inputs import NodeMount
from noded.spec.seccomp.profile import MAX_PROFILE_BYTES, parse_profile

log = structlog.get_logger(__name__)

_MOST_BYTES = 1 << 20


async def read_base_spec(handler: str, path: str) -> Mapping[str, Any]:
    """The base spec of a handler.

    Raises: FailedPrecondition naming the key of the configuration, the file, and the key in it.
    Cancellation: safe.
    """
    try:
        return parse_base_spec(await read_text(Path(path)))
    except InvalidArgument as error:
        raise FailedPrecondition(f"runtimes.{handler}.base_spec: {path}: {error}") from None


async def read_handler_profile(
    handler: str, path: str, name: str = "seccomp_profile"
) -> Mapping[str, Any] | None:
    """A seccomp profile of a handler, None without a path; parsed once while its file is the same.

    Args:
        name: the key of its table that names it.

    Raises: FailedPrecondition naming the key of the configuration, the file, and the key in it.
    Cancellation: safe.
    """
    if not path:
        return None
    key = f"runtimes.{handler}.{name}"

    def read() -> Mapping[str, Any]:
        info = os.stat(path)
        return _profile(path, (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns))

    try:
        return await trio.to_thread.run_sync(read)
    except OSError as error:
        raise FailedPrecondition(f"{key}: cannot read {path}: {error.strerror}") from None
    except InvalidArgument as error:
        raise FailedPrecondition(f"{key}: {error}") from None


@lru_cache(maxsize=64)
def _profile(path: str, _stamp: tuple[int, ...]) -> Mapping[str, Any]:
    with open(path, "rb") as file:
        return parse_profile(file.read(MAX_PROFILE_BYTES + 1), path)


async def read_default_mounts(path: Path) -> tuple[NodeMount, ...]:
    """The mounts of `default_mounts_file` whose source is there; one that is not is logged.

    Raises: FailedPrecondition naming the file and the line. Cancellation: safe.
    """
    try:
        mounts = parse_mounts(await read_text(path))
    except InvalidArgument as error:
        raise FailedPrecondition(f"default_mounts_file: {path}: {error}") from None
    there = []
    for mount in mounts:
        if await trio.Path(mount.source).exists():
            there.append(mount)
        else:
            log.warning("default mount left out, its source does not exist", source=mount.source)
    return tuple(there)


async def read_text(path: Path) -> str:
    """A file of an administrator. Raises: InvalidArgument."""

    def read() -> bytes:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)

    try:
        data = await trio.to_thread.run_sync(read)
        text = data.decode()
    except OSError as error:
        raise InvalidArgument(f"cannot read it: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidArgument("not UTF-8") from None
    if len(data) > _MOST_BYTES:
        raise InvalidArgument(f"larger than {_MOST_BYTES} bytes")
    return text
