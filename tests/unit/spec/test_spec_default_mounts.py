"""Mounts that every container gets: the administrator's file, and a node in FIPS mode."""

from __future__ import annotations

import pytest

from noded.errors import InvalidArgument
from noded.spec.default_mounts import fips_mounts, parse_mounts
from noded.spec.inputs import NodeMount


def test_the_file_is_read_as_containers_mounts_conf_says():
    text = "# secrets\n\n /usr/share/rhel/secrets:/run/secrets \n/srv:/srv\n"
    assert [(mount.source, mount.container_path) for mount in parse_mounts(text)] == [
        ("/usr/share/rhel/secrets", "/run/secrets"),
        ("/srv", "/srv"),
    ]


@pytest.mark.parametrize("line", ["/srv", "srv:/srv", "/srv:srv", "/srv:/a:ro", "/srv/../etc:/x", "/srv:"])
def test_a_line_that_is_no_mount_is_named(line):
    with pytest.raises(InvalidArgument, match="line 2: "):
        parse_mounts(f"/a:/b\n{line}\n")


def test_a_container_sees_that_the_node_is_in_fips_mode_unless_it_is_not_to():
    files = {
        "empty": "/b/empty",
        "zero": "/b/zero",
        "policies": {"/r/FIPS": "/etc/crypto-policies/back-ends"},
    }
    assert fips_mounts(disabled=False, **files) == (
        NodeMount("/etc/system-fips", "/b/empty", "fips"),
        NodeMount("/etc/crypto-policies/back-ends", "/r/FIPS", "fips"),
    )
    assert fips_mounts(disabled=True, **files) == (
        NodeMount("/proc/sys/crypto/fips_enabled", "/b/zero", "disable-fips"),
    )
