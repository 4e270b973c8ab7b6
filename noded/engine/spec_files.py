"""Reads the files with which an administrator adds to specs; for each container, since they may change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import FailedPrecondition, InvalidArgument
from noded.spec.base import parse_base_spec
from noded.spec.default_mounts import parse_mounts
from noded.spec.inputs import NodeMount

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
