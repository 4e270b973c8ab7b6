"""The conformance suite of the CRI, once, without retries; what it does not pass must be in the table."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance import expected, suite
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

pytestmark = pytest.mark.root

SEEDS = 3  # under `make prove`, of the first handler
SHIM = "containerd-shim-runc-v2"
HANDLERS = {
    "runc": {},
    "crun": {},
    "runsc": {"type": "runsc", "platform": "ptrace", "network": "host"},
    "shim": {"type": "shim"},
}
PROGRAMS = {"runsc": "runsc", "shim": SHIM}


@pytest.fixture(scope="module")
def critest() -> str:
    found = shutil.which("critest")
    if found is None:
        pytest.skip("critest (cri-tools) is not installed")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the suite's setuid image")
    return found


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_conformance_suite_passes_without_retries(critest, handler, tmp_path: Path, seed, counts):
    if handler != "runc" and counts(1, 2) == 1:
        pytest.skip("the other handlers run under `make prove`")
    if handler in PROGRAMS and shutil.which(PROGRAMS[handler]) is None:
        pytest.skip(f"{PROGRAMS[handler]} is not installed")
    settings = {"default_runtime": handler}
    if HANDLERS[handler]:
        settings["runtimes"] = {handler: HANDLERS[handler]}
    with Registry(tmp_path / "registry") as registry:
        suite.push_all(registry, tmp_path)
        mirrors = dict.fromkeys(suite.HOSTS, registry.host)
        with NodedDaemon(tmp_path, mirrors=mirrors, settings=settings) as daemon:
            with daemon.client() as cri:
                cri.stop("0" * 64)  # answered once the handlers have been asked what they can do
                status = cri.runtime.Status(cri.pb.StatusRequest(), timeout=20)
            features = {one.name: one.features for one in status.runtime_handlers}[handler]
            lines = expected.table(handler, expected.Node.look(features.user_namespaces))
            arguments = [f"-runtime-handler={handler}", f"-nri-socket={daemon.nri_socket}"]
            for number in range(counts(1, SEEDS) if handler == "runc" else 1):
                specs = suite.run(critest, daemon, tmp_path, seed=seed + number, arguments=arguments)
                print(handler, seed + number, dict(Counter(spec.status for spec in specs)))
                assert expected.differences(specs, lines) == []
                assert sum(spec.status == "passed" for spec in specs) >= 100
