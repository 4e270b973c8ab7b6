"""UpdateRuntimeConfig on a node without a network of its own: the range of kubelet makes one that works."""

from __future__ import annotations

import ipaddress
import json
import time

import grpc
import pytest

from tests.support import cni
from tests.support.daemon import NodedDaemon

pytestmark = pytest.mark.root


class DaemonWithTemplate(NodedDaemon):
    """Instead of a network it has a template of one."""

    def prepare(self):
        super().prepare()
        (self.cni_conf_dir / "10-test.conflist").unlink()
        made = cni.bridge_conflist(self.network, self.bridge, "{{.PodCIDR}}", self.ipam)
        (self.directory / "template").write_text(json.dumps(made))


@pytest.fixture
def daemon(tmp_path):
    made = DaemonWithTemplate(tmp_path)
    made.settings["network"]["conf_template"] = str(made.directory / "template")
    with made:
        yield made


def network_is_ready(cri):
    conditions = cri.runtime.Status(cri.pb.StatusRequest(), timeout=20).status.conditions
    return next(one.status for one in conditions if one.type == "NetworkReady")


def test_pods_get_addresses_of_the_range_that_kubelet_tells(daemon):
    subnet = cni.free_subnet()
    with daemon.client() as cri:
        cri.stop("0" * 64)
        assert not network_is_ready(cri)
        with pytest.raises(grpc.RpcError):
            cri.run_pod(daemon.pod_config(cri))
        network = cri.pb.NetworkConfig(pod_cidr=str(subnet))
        request = cri.pb.UpdateRuntimeConfigRequest(
            runtime_config=cri.pb.RuntimeConfig(network_config=network)
        )
        for _ in range(2):  # kubelet repeats it
            cri.runtime.UpdateRuntimeConfig(request, timeout=20)
        deadline = time.monotonic() + 20
        while not network_is_ready(cri):
            assert time.monotonic() < deadline
        pod = cri.run_pod(daemon.pod_config(cri))
        assert ipaddress.ip_address(cri.pod_ip(pod)) in subnet
        daemon.restart(hard=True)  # it is remembered: kubelet tells it again only when it starts anew itself
        cri.stop("0" * 64)
        other = cri.run_pod(daemon.pod_config(cri))
        assert ipaddress.ip_address(cri.pod_ip(other)) in subnet
        cri.remove_all_pods()
