"""Fixtures of the pull tests. Test files with another registry define their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pull_world import IMAGE, TWIN, World
from registry_fakes import FakeRegistry


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        fake.push(IMAGE, "a/b", "t")
        fake.push(TWIN, "a/twin", "t")
        yield fake


@pytest.fixture
def world(tmp_path: Path, registry: FakeRegistry) -> World:
    made = World(tmp_path)
    made.trust(registry)
    return made
