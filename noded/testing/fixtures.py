"""Fixtures of the acceptance suite. Import them into a conftest.py, and define `handler` there."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from noded.testing.cases import HandlerCase
from noded.testing.node import TestNode
from noded.testing.pods import TestPod

__all__ = ["node", "pod"]


@pytest.fixture(scope="session")
def node(handler: HandlerCase) -> Iterator[TestNode]:
    """A noded with the handler under test, shared by all tests of that handler."""
    if os.geteuid() != 0:
        pytest.skip("needs root: pods are made of namespaces, mounts and cgroups")
    with TestNode([handler]) as running:
        yield running


@pytest.fixture
def pod(node: TestNode, handler: HandlerCase) -> Iterator[TestPod]:
    """A pod of the handler under test, removed in the end."""
    made = node.run_pod(handler.name)
    yield made
    made.remove()
