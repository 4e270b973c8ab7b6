"""What the tests of streams share: a daemon with images, a running container, and crictl."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.oracle import Oracle
from tests.support.registry import Registry

HOST = "registry.example"  # a name that only noded's mirror configuration resolves
BUSYBOX = f"{HOST}/streams/busybox:1"


@pytest.fixture(scope="session")
def pushed(registry: Registry) -> Registry:
    """The registry with `streams/busybox:1`."""
    registry.push(images.busybox_image(), "streams/busybox", "1")
    return registry


@pytest.fixture
def settings() -> dict[str, object]:
    """Configuration over the test's default."""
    return {}


@pytest.fixture
def daemon(
    request: pytest.FixtureRequest, tmp_path: Path, pushed: Registry, settings: dict[str, object]
) -> Iterator[NodedDaemon]:
    """A daemon with these settings; in a file marked `one_daemon` that of the file."""
    if request.node.get_closest_marker("one_daemon") is not None:
        yield request.getfixturevalue("shared_daemon")
        return
    mirrors = {HOST: pushed.host}
    with NodedDaemon(tmp_path, mirrors=mirrors, insecure=[pushed.host], settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory, pushed: Registry) -> Iterator[NodedDaemon]:
    """The daemon of a file."""
    directory, mirrors = tmp_path_factory.mktemp("shared"), {HOST: pushed.host}
    with NodedDaemon(directory, mirrors=mirrors, insecure=[pushed.host]) as running:
        yield running


@pytest.fixture
def cri(request: pytest.FixtureRequest, daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        client.pull(BUSYBOX)
        yield client
        if request.node.get_closest_marker("one_daemon") is not None:
            daemon.clear(client)


@pytest.fixture(params=("runc", "crun"))
def handler(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=("spdy", "websocket"))
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(daemon: NodedDaemon, cri: Cri) -> Callable[..., tuple[str, str]]:
    """start(*command, handler=, network=, tty=, stdin=) -> (pod id, container id)."""

    def run(*command: str, handler: str = "runc", network: str = "POD", **options: object) -> tuple[str, str]:
        pod_config = daemon.pod_config(cri, network=network)
        pod = cri.run_pod(pod_config, handler)
        container = cri.container_config("main", BUSYBOX, command, network=network, **options)
        return pod, cri.run_container(pod, container, pod_config)

    return run


@pytest.fixture
def oracle(daemon: NodedDaemon, cri: Cri) -> Oracle:
    """The host oracle, after what only the first pod makes."""
    cri.remove_pod(cri.run_pod(daemon.pod_config(cri), "runc"))
    return Oracle(daemon)


@pytest.fixture
def run_crictl(daemon: NodedDaemon, crictl: str) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run crictl against the daemon."""

    def call(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        command = [crictl, "--runtime-endpoint", daemon.address, "--timeout", "30s", *arguments]
        return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)

    return call
