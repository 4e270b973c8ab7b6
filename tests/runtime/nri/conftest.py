"""A daemon for the tests of NRI plugins, which use the images of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

HOST = "registry.example"
IMAGE = f"{HOST}/e2e/busybox:1"
REQUEST_SECONDS = 1.5  # how long a plugin that hangs is waited for


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[NodedDaemon]:
    registry.push(images.busybox_image(), "e2e/busybox", "1")
    directory = tmp_path_factory.mktemp("nri")
    settings = {
        "nri": {"request_timeout_seconds": REQUEST_SECONDS},
        "cdi_spec_dirs": [directory / "cdi"],
    }
    mirrors = {HOST: registry.host}
    with NodedDaemon(directory, mirrors=mirrors, insecure=[registry.host], settings=settings) as running:
        yield running


@pytest.fixture
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)
        client.pull(IMAGE)
        yield client
        client.remove_all_pods()


@pytest.fixture
def pod(daemon: NodedDaemon, cri: Cri) -> tuple[str, object]:
    """A running pod: its id and its configuration."""
    config = daemon.pod_config(cri)
    return cri.run_pod(config), config
