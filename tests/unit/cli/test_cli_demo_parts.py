from __future__ import annotations

import gzip
import hashlib
import ipaddress
import json
import random
import socket
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli.demo import image, network
from noded.cli.run import cgroup_parent
from noded.errors import ResourceExhausted
from noded.host.cgroup_names import parent_path, parent_slice

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"


def route_line(subnet: ipaddress.IPv4Network) -> str:
    address, mask = (f"{socket.htonl(int(value)):08X}" for value in (subnet.network_address, subnet.netmask))
    return f"eth0\t{address}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0"


subnets = st.builds(
    lambda address, length: ipaddress.ip_network((address, length), strict=False),
    st.integers(0x0A000000, 0x0AFFFFFF),
    st.integers(11, 32),
)


@given(st.lists(subnets, max_size=5), st.randoms(use_true_random=False))
def test_the_demo_takes_a_subnet_that_no_route_uses(used, choice):
    found = network.free_subnet("\n".join([HEADER, *map(route_line, used)]), choice)
    assert found.prefixlen == 24
    assert not any(found.overlaps(subnet) for subnet in used)


def test_a_network_that_is_in_use_as_a_whole_is_an_error():
    with pytest.raises(ResourceExhausted, match=r"no free subnet in 10\.0\.0\.0/8"):
        network.free_subnet(f"{HEADER}\n{route_line(ipaddress.IPv4Network('10.0.0.0/8'))}", random.Random(1))


def test_the_default_route_does_not_use_up_every_subnet():
    default = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    assert network.free_subnet(f"{HEADER}\n{default}\n", random.Random(1)).subnet_of(
        ipaddress.ip_network("10.0.0.0/8")
    )


def test_a_python_with_a_loader_is_not_static_and_text_is_no_program(tmp_path):
    text = tmp_path / "text"
    text.write_text("#!/bin/sh\n")
    assert not image.is_static(text)
    assert not image.is_static(Path(sys.executable).resolve())


def test_the_layout_holds_what_its_digests_say(tmp_path):
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"a static program")
    digest = image.write_layout(tmp_path / "layout", busybox)
    blobs = {path.name: path.read_bytes() for path in (tmp_path / "layout/blobs/sha256").iterdir()}
    assert all(hashlib.sha256(content).hexdigest() == name for name, content in blobs.items())
    index = json.loads((tmp_path / "layout/index.json").read_text())
    assert [entry["digest"] for entry in index["manifests"]] == [digest]
    manifest = json.loads(blobs[digest.removeprefix("sha256:")])
    layer = gzip.decompress(blobs[manifest["layers"][0]["digest"].removeprefix("sha256:")])
    config = json.loads(blobs[manifest["config"]["digest"].removeprefix("sha256:")])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(layer).hexdigest()}"]
    with tarfile.open(fileobj=BytesIO(layer)) as archive:
        page = archive.extractfile("www/index.html")
        assert page is not None
        assert page.read().decode().strip() == image.GREETING
        assert archive.getmember("bin/sh").linkname == "busybox"


@pytest.mark.parametrize("systemd", [False, True])
def test_the_demos_cgroup_parent_suits_the_driver(systemd):
    parent = cgroup_parent("noded-demo-0a1b2c", systemd=systemd)
    assert (parent_slice if systemd else parent_path)(parent) == parent
