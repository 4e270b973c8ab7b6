"""Log lines about long pulls: few, short, and to the point."""

from __future__ import annotations

import trio
import trio.testing
from structlog.testing import capture_logs

from noded.images.progress import LayerProgress, Phase, PullProgress
from noded.images.pull_log import MOST_LAYERS, MOST_PULLS, PERIOD_SECONDS, PullLog, unfinished


def pulls(count: int, layers: int) -> list[PullProgress]:
    return [
        PullProgress(
            f"host/image:{number}",
            number,
            tuple(LayerProgress(f"sha256:{layer:064x}", 1000 + layer, 10) for layer in range(layers)),
        )
        for number in range(count)
    ]


def run(progress: list[list[PullProgress]]) -> list[dict[str, object]]:
    """What is logged when the pulls are looked at so often, and then are over."""

    async def main() -> None:
        log = PullLog(lambda: progress.pop(0) if progress else [])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            await trio.testing.wait_all_tasks_blocked()
            log.begin()
            await trio.sleep(10 * PERIOD_SECONDS)
            nursery.cancel_scope.cancel()

    with capture_logs() as lines:
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return lines


def test_the_rate_is_bounded_however_many_pulls_run() -> None:
    lines = run([pulls(300, 200)] * 3)
    assert len(lines) == 3 * (MOST_PULLS + 1)
    assert [line["reference"] for line in lines[:MOST_PULLS]] == [
        f"host/image:{number}" for number in range(MOST_PULLS)
    ]
    assert lines[MOST_PULLS] == {
        "event": "pulling more images", "log_level": "info", "pulls": 300 - MOST_PULLS
    }  # fmt: skip
    assert max(len(str(line)) for line in lines) < 600


def test_pulls_that_end_at_once_are_not_told_of() -> None:
    assert run([]) == []


def test_a_line_names_the_layers_with_most_to_do() -> None:
    layers = [
        LayerProgress("sha256:" + "a" * 64, 100, 90, Phase.STREAMING),
        LayerProgress("sha256:" + "b" * 64, 500, 0, Phase.WAITING),
        LayerProgress("sha256:" + "c" * 64, 900, 900, Phase.DONE),
        LayerProgress("sha256:" + "d" * 64, 900, 0, Phase.PRESENT),
    ]
    assert unfinished(layers) == "bbbbbbbbbbbb waiting 0/500, aaaaaaaaaaaa streaming 90/100"
    (one,) = pulls(1, MOST_LAYERS + 2)
    assert unfinished(one.layers).endswith(", 2 more")
