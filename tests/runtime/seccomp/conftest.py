"""A daemon whose handlers allow seccomp annotations, and images in a registry behind `quay.io`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import images
from tests.support.cri_client import Cri
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

ALLOWED = ["seccomp-*", "io.kubernetes.cri-o.seccompNotifierAction"]


def refusing(call: str) -> dict[str, object]:
    """A profile that refuses chmod(2) or mkdir(2) in all its forms."""
    names = [call, f"f{call}at", f"f{call}at2", f"{call}at"]
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": names, "action": "SCMP_ACT_ERRNO"}],
    }


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of this directory's own, which tests may stop from answering."""
    with Registry(tmp_path_factory.mktemp("shelf")) as registry:
        registry.push(images.busybox_image(), "e2e/busybox", "1")
        yield registry


@pytest.fixture(scope="package")
def daemon(tmp_path_factory: pytest.TempPathFactory, shelf: Registry) -> Iterator[NodedDaemon]:
    directory: Path = tmp_path_factory.mktemp("daemon")
    handlers = {name: {"type": name, "allowed_annotations": ALLOWED} for name in ("runc", "crun")}
    profiles = {name: directory / f"{name}.json" for name in ("default", "privileged")}
    for name, call in (("default", "mkdir"), ("privileged", "chmod")):
        profiles[name].write_text(json.dumps(refusing(call)))
    for name in ("runc", "crun"):
        handlers[f"own-{name}"] = {
            "type": name,
            "seccomp_profile": str(profiles["default"]),
            "privileged_seccomp_profile": str(profiles["privileged"]),
        }
    handlers["closed"] = {"type": "runc", "allowed_annotations": []}
    # Runtimes that have no filter whose descriptor they could hand over, or do not say so.
    handlers["shim"] = {"type": "shim", "allowed_annotations": ALLOWED}
    handlers["runsc"] = {
        "type": "runsc",
        "platform": "ptrace",
        "network": "host",
        "allowed_annotations": ALLOWED,
    }
    with NodedDaemon(
        directory,
        settings={"runtimes": handlers, "images": {"stall_timeout_seconds": 1.0}},
        mirrors={"quay.io": shelf.host},
        insecure=[shelf.host],
    ) as running:
        yield running


@pytest.fixture
def cri(daemon: NodedDaemon) -> Iterator[Cri]:
    with daemon.client() as client:
        client.stop("0" * 64)
        yield client
        client.remove_all_pods()


@pytest.fixture
def busybox(cri: Cri) -> str:
    cri.pull("quay.io/e2e/busybox:1")
    return "quay.io/e2e/busybox:1"


@pytest.fixture(params=("runc", "crun"))
def handler(request: pytest.FixtureRequest) -> str:
    return str(request.param)
