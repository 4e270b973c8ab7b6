from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition
from noded.network.result import conform, pod_addresses
from noded.network.version import SUPPORTED

BRIDGED = {
    "interfaces": [
        {"name": "cni0"},
        {"name": "veth1"},
        {"name": "eth0", "sandbox": "/run/netns/a"},
        {"name": "net1", "sandbox": "/run/netns/a"},
    ],
    "ips": [
        {"address": "fd00::5/64", "interface": 2},
        {"address": "10.1.2.3/24", "interface": 2},
        {"address": "10.1.2.1/24", "interface": 0},
        {"address": "192.168.7.7/24", "interface": 3},
    ],
}


def test_the_pods_addresses_come_in_the_plugins_order_without_prefix():
    assert pod_addresses(BRIDGED, "eth0") == ("fd00::5", "10.1.2.3")


def test_addresses_without_an_interface_are_the_pods():
    assert pod_addresses({"ips": [{"address": "10.1.2.3/24"}, {"address": "10.1.2.4"}]}, "eth0") == (
        "10.1.2.3",
        "10.1.2.4",
    )


def test_addresses_of_another_sandbox_interface_count_when_there_are_no_others():
    assert pod_addresses(BRIDGED, "ens5") == ("fd00::5", "10.1.2.3", "192.168.7.7")


def test_the_old_form_has_addresses_too():
    assert pod_addresses({"ip4": {"ip": "10.1.2.3/24"}, "ip6": {"ip": "fd00::1/64"}}, "eth0") == (
        "10.1.2.3",
        "fd00::1",
    )


def test_addresses_on_the_node_are_not_the_pods():
    assert (
        pod_addresses(
            {"interfaces": [{"name": "br"}], "ips": [{"address": "10.0.0.1/8", "interface": 0}]}, "eth0"
        )
        == ()
    )


@pytest.mark.parametrize(
    "ips", [["10.1.2.3"], [{"address": "10.1.2.300/24"}], [{}], [{"address": 7}], "10.1.2.3", {"a": 1}]
)
def test_a_malformed_address_is_refused(ips):
    with pytest.raises(FailedPrecondition, match="the CNI result"):
        pod_addresses({"ips": ips}, "eth0")


def test_a_result_without_version_gets_that_of_the_list():
    assert conform({"ips": []}, "1.0.0")["cniVersion"] == "1.0.0"


def test_an_old_result_in_a_newer_list_is_rewritten():
    old = {
        "cniVersion": "0.2.0",
        "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1", "routes": [{"dst": "0.0.0.0/0"}]},
    }
    assert conform(old, "0.4.0") == {
        "cniVersion": "0.4.0",
        "ips": [{"address": "10.1.2.3/24", "gateway": "10.1.2.1", "version": "4"}],
        "routes": [{"dst": "0.0.0.0/0"}],
    }


def test_an_old_result_in_an_old_list_stays():
    old = {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24"}}
    assert conform(old, "0.2.0") == old


def test_before_1_0_0_addresses_say_their_family():
    assert [ip["version"] for ip in conform(BRIDGED, "0.3.1")["ips"]] == ["6", "4", "4", "4"]
    assert conform(BRIDGED, "1.0.0")["ips"] == BRIDGED["ips"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(["10.1.1.1/24", "fd00::1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
entries = st.dictionaries(
    st.sampled_from(["address", "interface", "ip", "routes", "gateway", "version", "name", "sandbox"]),
    json_values,
)
results = st.dictionaries(
    st.sampled_from(["ips", "ip4", "ip6", "interfaces", "routes", "dns"]),
    json_values | entries | st.lists(entries, max_size=4),
)


@given(results, st.sampled_from(SUPPORTED))
def test_any_result_gives_plain_addresses_or_is_refused(result, version):
    try:
        conformed = conform(result, version)
        addresses = pod_addresses(conformed, "eth0")
    except FailedPrecondition:
        return
    assert all("/" not in address for address in addresses)
    assert json.loads(json.dumps(conformed)) == conformed
