"""The acceptance suite as a pytest plugin: the handler comes from a configuration file.

pytest -p noded.testing.plugin --noded-handler demo --pyargs noded.testing.acceptance
"""

from __future__ import annotations

from pathlib import Path

import pytest

from noded import settings
from noded.testing.cases import Ability, HandlerCase, case_of
from noded.testing.fixtures import node, pod

__all__ = ["handler", "node", "pod", "pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("noded")
    group.addoption("--noded-handler", default="runc", help="the handler under test")
    group.addoption("--noded-config", default="", help="configuration file that has the handler's table")
    group.addoption(
        "--noded-lacks",
        action="append",
        default=[],
        choices=[ability.name.lower() for ability in Ability],
        help="what its runtime cannot do by its nature; may be given several times",
    )
    group.addoption("--noded-slow", type=float, default=1.0, help="factor for the suite's time limits")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "root: needs root, and changes the host only in ways it undoes")


@pytest.fixture(scope="session")
def handler(request: pytest.FixtureRequest) -> HandlerCase:
    """The handler that the command line names."""
    option = request.config.getoption
    path = option("--noded-config")
    lacks = frozenset(Ability[name.upper()] for name in option("--noded-lacks"))
    config = settings.load(Path(path) if path else None)
    return case_of(config, option("--noded-handler"), lacks=lacks, slow=option("--noded-slow"))
