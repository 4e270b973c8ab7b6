"""What the end-to-end tests share: images in a registry, and a daemon that finds them by mirror."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.oracle import Oracle
from tests.support.registry import Registry

HANDLERS = ("runc", "crun")
HOST = "registry.example"  # a name that only noded's mirror configuration resolves


@pytest.fixture(scope="session")
def pushed(registry: Registry) -> Registry:
    """The registry with `e2e/busybox:1` and `e2e/http:1`."""
    registry.push(images.busybox_image(), "e2e/busybox", "1")
    registry.push(images.http_image(), "e2e/http", "1")
    return registry


@pytest.fixture
def daemon(request: pytest.FixtureRequest, tmp_path: Path, pushed: Registry) -> Iterator[NodedDaemon]:
    """A daemon whose mirror for HOST is the test's registry; under the mark `one_daemon` that of the file."""
    if shares_daemon(request):
        yield request.getfixturevalue("shared_daemon")
        return
    mirrors = {HOST: pushed.host}
    with NodedDaemon(tmp_path, mirrors=mirrors, insecure=[pushed.host]) as running:
        yield running


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory, pushed: Registry) -> Iterator[NodedDaemon]:
    """The daemon of a file, which has had pods already."""
    directory, mirrors = tmp_path_factory.mktemp("shared"), {HOST: pushed.host}
    with NodedDaemon(directory, mirrors=mirrors, insecure=[pushed.host]) as running:
        with running.client() as client:
            make_lasting(running, client)
        yield running


@pytest.fixture
def busybox(cri: Cri) -> str:
    """Reference of a pulled busybox image."""
    cri.pull(f"{HOST}/e2e/busybox:1")
    return f"{HOST}/e2e/busybox:1"


@pytest.fixture
def http(cri: Cri) -> str:
    """Reference of a pulled image with a web server on port 80."""
    cri.pull(f"{HOST}/e2e/http:1")
    return f"{HOST}/e2e/http:1"


@pytest.fixture
def cri(request: pytest.FixtureRequest, daemon: NodedDaemon) -> Iterator[Cri]:
    """A connected client of a daemon that has settled."""
    with daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        yield client
        if shares_daemon(request):
            daemon.clear(client)


@pytest.fixture
def oracle(request: pytest.FixtureRequest, daemon: NodedDaemon, cri: Cri) -> Oracle:
    """The host oracle, after what only the first pods make."""
    if not shares_daemon(request):
        make_lasting(daemon, cri)
    return Oracle(daemon)


def shares_daemon(request: pytest.FixtureRequest) -> bool:
    return request.node.get_closest_marker("one_daemon") is not None


def make_lasting(daemon: NodedDaemon, cri: Cri) -> None:
    """Have made what only the first pods make: the bridge, runtime directories."""
    for handler in HANDLERS:
        cri.remove_pod(cri.run_pod(daemon.pod_config(cri, pid="POD"), handler))


@pytest.fixture(params=HANDLERS)
def handler(request: pytest.FixtureRequest) -> str:
    """Each runtime handler in turn."""
    return str(request.param)
