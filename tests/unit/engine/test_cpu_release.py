"""CPUs are given back for containers that may have had some tuned, and only for those."""

from __future__ import annotations

from types import SimpleNamespace

import trio

from noded.engine.cpu_tuning import CpuTunings, journal


def test_only_what_may_have_been_tuned_is_looked_for_and_once(tmp_path):
    undone = []
    tunings = CpuTunings(None, None, SimpleNamespace(undo=undone.append))
    fresh = SimpleNamespace(ref=SimpleNamespace(bundle=tmp_path / "fresh"), cpus_tuned=False)
    found = SimpleNamespace(ref=SimpleNamespace(bundle=tmp_path / "found"), cpus_tuned=True)

    async def main():
        for _ in range(2):
            await tunings.down(fresh)
            await tunings.down(found)

    trio.run(main)
    assert undone == [journal(found)]
