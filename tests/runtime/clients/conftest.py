"""A daemon, an API server in front of its streams, and kubectl with nothing of the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.api_server import ApiServer
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

HOST = "registry.example"  # a name that only noded's mirror configuration resolves
BUSYBOX = f"{HOST}/clients/busybox:1"
SWITCHES = ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[NodedDaemon]:
    registry.push(images.busybox_image(), "clients/busybox", "1")
    directory = tmp_path_factory.mktemp("clients")
    with NodedDaemon(directory, mirrors={HOST: registry.host}, insecure=[registry.host]) as running:
        yield running


@pytest.fixture(scope="module")
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        client.pull(BUSYBOX)
        yield client


@pytest.fixture(scope="module")
def api(cri: Cri) -> Iterator[ApiServer]:
    with ApiServer(cri) as running:
        yield running


@pytest.fixture(scope="module")
def start(daemon: NodedDaemon, cri: Cri, api: ApiServer) -> Callable[..., tuple[str, str]]:
    """start(*command, stdin=) -> (name of a pod, id of its container)."""

    def run(*command: str, stdin: bool = False) -> tuple[str, str]:
        config = daemon.pod_config(cri)
        sandbox = cri.run_pod(config)
        main = cri.container_config("main", BUSYBOX, command, stdin=stdin)
        container = cri.run_container(sandbox, main, config)
        api.add(config.metadata.name, sandbox, container, stdin=stdin)
        return config.metadata.name, container

    return run


@pytest.fixture(scope="module")
def web(start: Callable[..., tuple[str, str]]) -> str:
    """A pod that serves /srv on port 80 and in which commands may be run."""
    return start("sh", "-c", "mkdir /srv; echo hello >/srv/index.html; exec httpd -f -p 80 -h /srv")[0]


@pytest.fixture(params=("spdy", "websocket"))
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kubectl(api: ApiServer, transport: str, tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """kubectl(*arguments, **options of Popen) -> the running program."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed")
    (tmp_path / "config").write_text("apiVersion: v1\nkind: Config\n")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KUBECONFIG": str(tmp_path / "config"),
        **dict.fromkeys(SWITCHES, "true" if transport == "websocket" else "false"),
    }

    def run(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
        command = [program, "--server", api.url, *arguments]
        return subprocess.Popen(command, env=environment, **options)

    return run
