"""`make vm`: noded on a stock Debian with systemd, cgroup v2 and AppArmor, as its packages install it.

`NODED_VM=1 make prove PARTS=tests/vm` writes what came of it into RESULTS.md.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.vm.guest import HERE, KEPT, Guest, missing, write_disk
from tests.vm.node import IMAGE, Node, bring_modules, packages

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
    """A booted guest with this tree's packages and an image on its second disk.

    For work on noded or on these tests VM_KEEP=1 leaves it running. The next run attaches to it and
    brings changed modules (VM_KEEP=still: none, so the daemon goes on). Packages and the rest of what
    makes a guest stay those of its start.
    """
    directory = tmp_path_factory.mktemp("vm")

    def payload() -> Path:
        files = directory / "payload"
        files.mkdir()
        (files / "agent.py").write_bytes((HERE / "guest" / "agent.py").read_bytes())
        for revision, debs in packages().items():
            shutil.copytree(debs, files / f"debs-{revision}")
        layout = images.write_layout(images.busybox_image(), directory / "layout", IMAGE)
        with tarfile.open(files / "image.tar", "w") as archive:
            archive.add(layout, arcname=".")
        return write_disk(files, directory / "payload.img", 256)

    kept = os.environ.get("VM_KEEP", "") not in ("", "0")
    if kept:
        (KEPT / "running").mkdir(parents=True, exist_ok=True)
    with Guest(payload, KEPT / "running" if kept else directory, kept=kept) as running:
        if running.attached and os.environ["VM_KEEP"] != "still":
            bring_modules(running)
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
