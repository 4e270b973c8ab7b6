"""The conformance suite of the CRI, once, without retries; what it skips must have a reason here."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.conformance import suite
from tests.support.daemon import NodedDaemon
from tests.support.registry import Registry

pytestmark = pytest.mark.root

# Specs that cannot pass on this kind of host, and why.
EXPECTED_FAILURES = {
    # It pins the digest of an image that only the public registry has.
    "public image with digest should be pulled and removed",
    # It masks /bin/ls and runs `sh -c ls`; the shell of Debian's busybox uses its own applet, not the file.
    "runtime should support MaskedPaths",
}
EXPECTED_SKIPS = {
    "AppArmor": re.compile(r"apparmor", re.IGNORECASE),  # no AppArmor in the kernel
    "benchmarks": re.compile(r"benchmark", re.IGNORECASE),  # run by another option
    "user namespaces": re.compile(r"idmap mount support is needed|UserNamespaces"),  # not with runc 1.1
}


@pytest.fixture(scope="module")
def critest() -> str:
    found = shutil.which("critest")
    if found is None:
        pytest.skip("critest (cri-tools) is not installed")
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler for the suite's setuid image")
    return found


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_the_conformance_suite_passes_without_retries(critest, handler, tmp_path: Path, seed, counts):
    if handler == "crun" and counts(1, 2) == 1:
        pytest.skip("the second handler runs under `make prove`")
    with Registry(tmp_path / "registry") as registry:
        suite.push_all(registry, tmp_path)
        mirrors = dict.fromkeys(suite.HOSTS, registry.host)
        settings = {"default_runtime": handler}
        with NodedDaemon(tmp_path, mirrors=mirrors, settings=settings) as daemon:
            arguments = [f"-runtime-handler={handler}", f"-nri-socket={daemon.nri_socket}"]
            specs = suite.run(critest, daemon, tmp_path, seed=seed, arguments=arguments)
    failed = {spec.name: spec.message for spec in specs if spec.status == "failed"}
    unexpected = {
        name: message
        for name, message in failed.items()
        if not any(known in name for known in EXPECTED_FAILURES)
    }
    assert unexpected == {}
    skipped = [spec for spec in specs if spec.status == "skipped"]
    unexplained = [
        f"{spec.name}: {spec.message}"
        for spec in skipped
        if not any(pattern.search(spec.name) for pattern in EXPECTED_SKIPS.values())
    ]
    assert unexplained == []
    passed = sum(spec.status == "passed" for spec in specs)
    print(f"{handler}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped")
    assert passed >= 100
