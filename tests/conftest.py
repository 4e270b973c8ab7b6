"""What all tests share: markers, seeds, and the fixtures over `tests.support`."""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
if str(REPOSITORY) not in sys.path:
    sys.path.insert(0, str(REPOSITORY))  # for `import tests.support`, however pytest was started

from tests.support.counts import full_counts

if TYPE_CHECKING:
    from tests.support.cri_client import Cri
    from tests.support.daemon import NodedDaemon
    from tests.support.oracle import Oracle
    from tests.support.registry import Registry

DEFAULT_SEED = 1


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # Hypothesis reads this option; without one every run would try other examples.
    if config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(DEFAULT_SEED)
    # A slow machine is no failure; a thorough run looks further.
    hypothesis.settings.register_profile("ci", deadline=None)
    hypothesis.settings.register_profile("prove", deadline=None, max_examples=1000)
    hypothesis.settings.load_profile("prove" if full_counts() else "ci")


def pytest_report_header(config: pytest.Config) -> list[str]:
    user = "root" if os.geteuid() == 0 else "an unprivileged user: tests that need root are skipped"
    return [
        f"seed: {_seed(config)} (another: --hypothesis-seed=N)",
        f"counts: {'full' if full_counts() else 'those of continuous integration (full: NODED_PROVE=1)'}",
        f"running as {user}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not full_counts():
        dropped = _rotated_out(_seed(config), items)
        config.hook.pytest_deselected(items=[item for item in items if item in dropped])
        items[:] = [item for item in items if item not in dropped]
    sizes = Counter(item.path for item in items)
    items.sort(key=lambda item: _place(item, sizes[item.path]))
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run as root, for example `sudo make test`")
    for item in items:
        if item.get_closest_marker("root") is not None:
            item.add_marker(skip)


def _place(item: pytest.Item, size: int) -> tuple[bool, bool, int]:
    """Seconds before minutes: what needs no root shows its failures first. Then the files that take long,
    and small ones last: workers end together, and none begins with minutes when the others have finished.
    """
    root = item.get_closest_marker("root") is not None
    return root, root and item.get_closest_marker("long") is None, -size if root else 0


def _rotated_out(seed: int, items: list[pytest.Item]) -> set[pytest.Item]:
    """The cases of tests marked `rotated(N)` that this seed leaves out: all but N of each test."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("rotated") is not None:
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    dropped: set[pytest.Item] = set()
    for name, group in cases.items():
        kept = next(group[0].iter_markers("rotated")).args[0]
        group.sort(key=lambda item: item.nodeid)
        dropped.update(random.Random(f"{seed} {name}").sample(group, max(0, len(group) - kept)))
    return dropped


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the daemon's log with a failed test that uses the `daemon` fixture."""
    report = yield
    daemon = getattr(item, "funcargs", {}).get("daemon")
    if report.failed and daemon is not None:
        report.sections.append(("noded's log", daemon.log_text()))
    return report


def _seed(config: pytest.Config) -> int:
    return int(config.getoption("hypothesis_seed"))


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Seed of this run: `--hypothesis-seed`, fixed by default."""
    return _seed(request.config)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Random numbers that depend on the seed and the test's name only; the seed is printed."""
    print(f"seed {_seed(request.config)} of {request.node.nodeid}")
    return random.Random(f"{_seed(request.config)} {request.node.nodeid}")


@pytest.fixture
def counts() -> Any:
    """`counts(ci, full)`: how often to do a thing, the full count under `make prove`."""
    return lambda ci, full: full if full_counts() else ci


@pytest.fixture
def subreaper() -> Iterator[None]:
    """This process gets orphans as its children, as noded does, until the test has ended."""
    from tests.support.processes import subreaper

    with subreaper():
        yield


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A real registry for the whole session. Push under names of the test's own."""
    from tests.support.registry import Registry

    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[NodedDaemon]:
    """A running noded with defaults; for other settings make a NodedDaemon in the test."""
    from tests.support.daemon import NodedDaemon

    with NodedDaemon(tmp_path) as running:
        yield running


@pytest.fixture
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    """A client of `daemon`."""
    with daemon.client() as client:
        yield client


@pytest.fixture
def oracle(daemon: NodedDaemon) -> Oracle:
    """The host oracle over `daemon`."""
    from tests.support.oracle import Oracle

    return Oracle(daemon)


@pytest.fixture(scope="session")
def crictl() -> str:
    """Path of crictl; skips, with the reason, where it is not to be had."""
    from tests.support import cri_tools

    try:
        return cri_tools.find("crictl")
    except cri_tools.NotHere as error:
        pytest.skip(str(error))
