"""One daemon for the directory, a kubelet for each test, and images to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.kubelet.kubelet import Container, Kubelet, Pod
from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

HOST = "registry.example"  # a name that only noded's mirror configuration resolves
POLICY = {
    "default": [{"type": "insecureAcceptAnything"}],
    "transports": {"docker": {f"{HOST}/kubelet/forbidden": [{"type": "reject"}]}},
}
# Ends at once on SIGTERM, so that kubelet's shortest grace is not waited for.
SLEEP = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait")


@pytest.fixture(scope="session")
def pushed(registry: Registry) -> Registry:
    """The registry with images under `kubelet/`."""
    registry.push(images.busybox_image(), "kubelet/busybox", "1")
    for name in ("unused", "pinned", "forbidden"):
        registry.push(images.busybox_image(labels={"of": name}), f"kubelet/{name}", "1")
    return registry


@pytest.fixture(scope="session")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry that asks for a password."""
    with Registry(tmp_path_factory.mktemp("private"), private=True) as running:
        yield running


@pytest.fixture(scope="session")
def kubelets_daemon(
    tmp_path_factory: pytest.TempPathFactory, pushed: Registry, private: Registry
) -> Iterator[NodedDaemon]:
    mirrors = {HOST: pushed.host}
    directory = tmp_path_factory.mktemp("kubelet")
    policy = directory / "policy.json"
    policy.write_text(json.dumps(POLICY))
    settings = {
        "images": {"pinned": [f"{HOST}/kubelet/pinned:*"], "signature_policy": str(policy)},
        "runtimes": {"runsc": {"type": "runsc", "platform": "ptrace", "network": "host"}},
    }
    insecure = [pushed.host, private.host]
    with NodedDaemon(directory, mirrors=mirrors, insecure=insecure, settings=settings) as running:
        yield running


@pytest.fixture
def daemon(kubelets_daemon: NodedDaemon) -> NodedDaemon:
    if not kubelets_daemon.running:  # the test before ended in the middle of an outage
        kubelets_daemon.start()
    return kubelets_daemon


@pytest.fixture
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        yield client


@pytest.fixture(scope="module")
def process(kubelets_daemon: NodedDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """The kubelet of a file of tests, with a pod that runs from its first to its last."""
    with kubelets_daemon.client() as client:
        client.stop("0" * 64)  # changes are answered once the daemon has looked at the node
        made = Kubelet(client, tmp_path_factory.mktemp("node"), kubelets_daemon.cgroup_parent)
        made.start()
        yield made
        client.remove_all_pods()


@pytest.fixture(scope="module")
def standing(process: Kubelet) -> Pod:
    """A sleeping pod for tests that only look at it."""
    made = Pod([Container("main", f"{HOST}/kubelet/busybox:1", SLEEP)])
    process.sync(made)
    return made


@pytest.fixture
def kubelet(process: Kubelet, daemon: NodedDaemon) -> Iterator[Kubelet]:
    """It has made no call yet; the pods of a test are removed after it."""
    before = {one.id for one in process.cri.pods()}
    process.calls.clear()
    yield process
    if daemon.running:
        for one in process.cri.pods():
            if one.id not in before:
                process.cri.remove_pod(one.id)


@pytest.fixture
def pod() -> Callable[..., Pod]:
    """pod(*command, image=, handler=, ...) -> a pod whose container is `main`; by default it sleeps."""

    def make(*command: str, image: str = f"{HOST}/kubelet/busybox:1", **options: object) -> Pod:
        own = {key: options.pop(key) for key in ("post_start", "memory_bytes") if key in options}
        main = Container("main", image, command or SLEEP, **own)
        return Pod([main], **options)

    return make
