"""critest's own streaming specs."""

from __future__ import annotations

import subprocess

import pytest

from tests.support import cri_tools, images
from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root


@pytest.mark.parametrize("transport", ["spdy", "websocket"])
def test_every_streaming_spec_passes_without_a_retry(tmp_path, registry, transport, seed):
    try:
        critest = cri_tools.find("critest")
    except cri_tools.NotHere as error:
        pytest.skip(str(error))
    prefix = "critest"
    registry.push(images.busybox_image(), f"{prefix}/e2e-test-images/busybox", "1.29-2")
    registry.push(images.http_image(80), f"{prefix}/e2e-test-images/nginx", "1.14-2")
    registry.push(images.http_image(12003), f"{prefix}/k8s-staging-cri-tools/hostnet-nginx-amd64", "latest")
    mirrors = dict.fromkeys(("registry.k8s.io", "gcr.io"), f"{registry.host}/{prefix}")
    over = ["-websocket-exec", "-websocket-attach", "-websocket-portforward"]
    with NodedDaemon(tmp_path, mirrors=mirrors, insecure=[registry.host]) as daemon:
        done = subprocess.run(
            [
                critest,
                f"-runtime-endpoint={daemon.address}",
                f"-image-endpoint={daemon.address}",
                "-ginkgo.focus=Streaming",
                "-ginkgo.flake-attempts=0",
                f"-ginkgo.seed={seed}",
                "-ginkgo.no-color",
                *(over if transport == "websocket" else []),
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "5 Passed | 0 Failed" in done.stdout, done.stdout[-2000:]
