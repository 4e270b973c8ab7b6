"""A daemon for the tests of NRI plugins, which use the images of the end-to-end tests."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

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
        "metrics": {"listen": str(directory / "metrics")},
    }
    mirrors = {HOST: registry.host}
    with NodedDaemon(directory, mirrors=mirrors, insecure=[registry.host], settings=settings) as running:
        yield running


@pytest.fixture
def metric(daemon: NodedDaemon) -> Callable[..., float]:
    """metric(NAME, label=value, ...) -> the daemon's value of a metric, 0 when it has none."""

    def value(name: str, **labels: str) -> float:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(daemon.settings["metrics"]["listen"]))
            connection.sendall(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(partial(connection.recv, 65536), b"")).decode()
        families = text_string_to_metric_families(answer.partition("\r\n\r\n")[2])
        samples = [one for family in families for one in family.samples]
        return sum(one.value for one in samples if (one.name, one.labels) == (name, labels))

    return value


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
