"""What the crash tests share: an image archive, daemons with that image and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.crash.faults import FaultyDaemon
from tests.crash.world import IMAGE, World
from tests.support import images


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the daemon's log with a failed test."""
    report = yield
    for value in getattr(item, "funcargs", {}).values():
        if report.failed and isinstance(value, World):
            report.sections.append(("noded's log", value.daemon.log_text(120)))
    return report


@pytest.fixture(scope="session")
def image_layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI layout with busybox."""
    return images.write_layout(images.busybox_image(), tmp_path_factory.mktemp("layout"), IMAGE)


@pytest.fixture(scope="module")
def open_world(
    image_layout: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., World]]:
    """Make worlds that last as long as the module."""
    with ExitStack() as stack:

        def open_world(**options: Any) -> World:
            daemon = FaultyDaemon(tmp_path_factory.mktemp("world"), **options)
            return stack.enter_context(World(daemon, image_layout))

        yield open_world


@pytest.fixture
def world(image_layout: Path, tmp_path: Path) -> Iterator[World]:
    """A world for one test."""
    with World(FaultyDaemon(tmp_path), image_layout) as running:
        yield running
