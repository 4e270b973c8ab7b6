"""`make vm`: noded on a stock Debian with systemd, cgroup v2 and AppArmor, as its packages install it."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.vm.guest import HERE, Guest, missing, write_disk
from tests.vm.node import IMAGE, Node, packages

_DIRECTORY = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.environ.get("NODED_VM", "") not in ("", "0"):
        reason = missing()
    else:
        reason = "boots a virtual machine, for minutes: run `make vm`"
    for item in items:
        if _DIRECTORY in item.path.parents:
            item.add_marker(pytest.mark.root)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the daemon's journal with a failed test."""
    report = yield
    node = getattr(item, "funcargs", {}).get("node")
    if report.failed and node is not None:
        try:
            report.sections.append(("noded's journal", node.journal()))
        except (OSError, AssertionError) as error:
            report.sections.append(("the guest's console", f"{error}\n{node.guest.console()[-3000:]}"))
    return report


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A booted guest with this tree's packages and an image on its second disk."""
    directory = tmp_path_factory.mktemp("vm")
    files = directory / "payload"
    files.mkdir()
    (files / "agent.py").write_bytes((HERE / "guest" / "agent.py").read_bytes())
    for revision in (1, 2):
        (files / f"debs-{revision}").mkdir()
        for package in packages(revision):
            (files / f"debs-{revision}" / package.name).write_bytes(package.read_bytes())
    layout = images.write_layout(images.busybox_image(), directory / "layout", IMAGE)
    with tarfile.open(files / "image.tar", "w") as archive:
        archive.add(layout, arcname=".")
    payload = write_disk(files, directory / "payload.img", 256)
    with Guest(payload, directory) as running:
        yield running


@pytest.fixture(scope="session")
def _node(guest: Guest) -> Iterator[Node]:
    with Node(guest) as node:
        yield node


@pytest.fixture
def node(_node: Node) -> Iterator[Node]:
    """noded in the guest, installed and running, without pods; what a test leaves is removed."""
    _node.ensure_installed()
    yield _node
    _node.remove_all_pods()
