"""Log lines about pulls that take long, at a rate that does not grow with the pulls or their layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
import trio

from noded.images.progress import LayerProgress, Phase, PullProgress

PERIOD_SECONDS: Final = 10.0  # between two lines about the same pull
MOST_PULLS: Final = 10  # that get a line in one period, the oldest first
MOST_LAYERS: Final = 6  # that a line tells of, those with most to download first

log = structlog.get_logger(__name__)


class PullLog:
    """A service: `run` must be running."""

    def __init__(self, pulls: Callable[[], Sequence[PullProgress]]) -> None:
        self._pulls = pulls
        self._begun = trio.Event()

    def begin(self) -> None:
        """A pull has begun."""
        self._begun.set()

    async def run(self) -> None:
        """Tell of each long pull until cancelled; no timer while nothing is pulled."""
        while True:
            await self._begun.wait()
            await trio.sleep(PERIOD_SECONDS)
            pulls = sorted(self._pulls(), key=lambda pull: pull.started_at_ns)
            for pull in pulls[:MOST_PULLS]:
                _tell(pull)
            if len(pulls) > MOST_PULLS:
                log.info("pulling more images", pulls=len(pulls) - MOST_PULLS)
            if not pulls:
                self._begun = trio.Event()


def _tell(pull: PullProgress) -> None:
    log.info(
        "pulling",
        reference=pull.reference,
        done_bytes=pull.done_bytes,
        total_bytes=pull.total_bytes,
        layers=len(pull.layers),
        seconds=round((time.time_ns() - pull.started_at_ns) / 1e9),
        unfinished=unfinished(pull.layers),
    )


def unfinished(layers: Sequence[LayerProgress]) -> str:
    """The layers that are not done, such as `4f1c0e2a9b7d downloading 1000/52000, 2 more`."""
    left = [layer for layer in layers if layer.phase not in (Phase.DONE, Phase.PRESENT)]
    left.sort(key=lambda layer: layer.done_bytes - layer.total_bytes)
    words = [
        f"{layer.digest.partition(':')[2][:12]} {layer.phase} {layer.done_bytes}/{layer.total_bytes}"
        for layer in left[:MOST_LAYERS]
    ]
    if len(left) > MOST_LAYERS:
        words.append(f"{len(left) - MOST_LAYERS} more")
    return ", ".join(words)
