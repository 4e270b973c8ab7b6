"""A progress bar for each layer of a running pull, on a terminal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from noded.cli.client import Daemon
from noded.cli.quantities import short_id
from noded.errors import InvalidArgument, NodedError
from noded.proto.noded.admin import v1 as admin
from noded.wire import reference as references

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_ENDED = ("done", "present")


@asynccontextmanager
async def shown(daemon: Daemon, reference: str) -> AsyncGenerator[None]:
    """Show the pull of `reference` while the body runs. What cannot be shown is no error."""
    task = asyncio.create_task(_follow(daemon, reference))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, NodedError):
            await task


async def _follow(daemon: Daemon, reference: str) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[phase]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bars: dict[str, TaskID] = {}
        async for answer in daemon.admin_stream(
            "WatchPulls", admin.WatchPullsRequest(), admin.WatchPullsResponse
        ):
            for pull in answer.pulls:
                if is_same(reference, pull.reference):
                    _update(progress, bars, pull.layers)


def _update(progress: Progress, bars: dict[str, TaskID], layers: Iterable[admin.PulledLayer]) -> None:
    for layer in layers:
        if layer.digest not in bars:
            bars[layer.digest] = progress.add_task(short_id(layer.digest), total=layer.total_bytes, phase="")
        done = layer.total_bytes if layer.phase in _ENDED else layer.done_bytes
        progress.update(bars[layer.digest], completed=done, phase=layer.phase)


def is_same(text: str, full: str) -> bool:
    """Whether a full reference may be what a person wrote; the daemon knows what short names mean."""
    try:
        if not references.is_short(text):
            return str(references.parse(text)) == full
    except InvalidArgument:
        return False
    tag = "" if "@" in text or ":" in text else f":{references.DEFAULT_TAG}"
    return full.endswith(f"/{text}{tag}")
