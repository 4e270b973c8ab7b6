from __future__ import annotations

import pytest

from noded.errors import InvalidArgument
from noded.model.pod import DNSConfig, PodConfig, PortMapping, PortProtocol, SandboxKey
from noded.network.capability import PodFacts, capability_args, cni_args

KEY = SandboxKey("ns", "web", "uid-1", 0)


def values(*capabilities, cgroup="", cidrs=(), **pod):
    return capability_args(frozenset(capabilities), PodFacts(PodConfig(KEY, **pod), cgroup, cidrs))


def test_only_declared_capabilities_have_values():
    assert values(cgroup="/kubepods/x", annotations={"kubernetes.io/ingress-bandwidth": "1M"}) == {}


def test_only_ports_with_a_host_port_are_mapped():
    ports = (
        PortMapping(PortProtocol.TCP, 80, 8080),
        PortMapping(PortProtocol.UDP, 53, 0),
        PortMapping(PortProtocol.SCTP, 99, 9999, "127.0.0.1"),
    )
    assert values("portMappings", port_mappings=ports)["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 9999, "containerPort": 99, "protocol": "sctp", "hostIP": "127.0.0.1"},
    ]
    assert values("portMappings", port_mappings=ports[1:2]) == {}


def test_bandwidth_is_in_bits_with_a_burst_that_the_kernel_can_count():
    annotations = {"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1G"}
    assert values("bandwidth", annotations=annotations)["bandwidth"] == {
        "ingressRate": 10_000_000,
        "ingressBurst": 2_560_000_000,
        "egressRate": 1_000_000_000,
        "egressBurst": 2**32 - 1,
    }


def test_one_direction_of_bandwidth_leaves_the_other_free():
    annotations = {"kubernetes.io/egress-bandwidth": "1M", "kubernetes.io/ingress-bandwidth": ""}
    assert set(values("bandwidth", annotations=annotations)["bandwidth"]) == {"egressRate", "egressBurst"}


@pytest.mark.parametrize("text", ["fast", "10", "-1M", "2P"])
def test_a_bad_bandwidth_names_its_annotation(text):
    with pytest.raises(InvalidArgument, match=r"annotation kubernetes\.io/ingress-bandwidth"):
        values("bandwidth", annotations={"kubernetes.io/ingress-bandwidth": text})


def test_dns_carries_what_the_pod_has():
    dns = DNSConfig(("10.0.0.10",), ("a.local", "b.local"), ("ndots:5",))
    assert values("dns", dns=dns)["dns"] == {
        "servers": ["10.0.0.10"], "searches": ["a.local", "b.local"], "options": ["ndots:5"],
    }  # fmt: skip
    assert values("dns", dns=DNSConfig()) == {}
    assert values("dns") == {}


def test_each_address_family_is_a_set_of_ranges():
    assert values("ipRanges", cidrs=("10.1.0.0/24", "fd00::/64", "10.2.0.0/24"))["ipRanges"] == [
        [{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24"}],
        [{"subnet": "fd00::/64"}],
    ]


def test_mac_and_ips_come_from_annotations():
    annotations = {"network.noded/mac": "02:00:00:00:00:aB", "network.noded/ips": "10.1.2.3, fd00::1/64"}
    assert values("mac", "ips", annotations=annotations) == {
        "mac": "02:00:00:00:00:aB",
        "ips": ["10.1.2.3", "fd00::1/64"],
    }


@pytest.mark.parametrize(
    ("capability", "annotation", "text"),
    [
        ("mac", "network.noded/mac", "02:00"),
        ("mac", "network.noded/mac", "02:00:00:00:00:01\n"),
        ("ips", "network.noded/ips", "10.1.2"),
    ],
)
def test_a_bad_address_annotation_is_named(capability, annotation, text):
    with pytest.raises(InvalidArgument, match=f"annotation {annotation}"):
        values(capability, annotations={annotation: text})


def test_cgroup_path_and_annotations_are_passed():
    got = values(
        "cgroupPath", "io.kubernetes.cri.pod-annotations", cgroup="/kubepods/p", annotations={"a": "b"}
    )
    assert got == {"cgroupPath": "/kubepods/p", "io.kubernetes.cri.pod-annotations": {"a": "b"}}


def test_cni_args_come_in_the_order_of_the_peers():
    args = cni_args("abc", PodConfig(KEY))
    assert ";".join(f"{key}={value}" for key, value in args) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=web;K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=uid-1"
    )


@pytest.mark.parametrize("name", ["a;K8S_POD_NAMESPACE=kube-system", "a=b", "a\0b"])
def test_a_name_that_would_smuggle_in_arguments_is_refused(name):
    with pytest.raises(InvalidArgument, match=r"config\.metadata"):
        cni_args("abc", PodConfig(SandboxKey("ns", name, "u", 0)))
