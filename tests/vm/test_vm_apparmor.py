"""AppArmor as this kernel enforces it."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import grpc
import pytest

from tests.support import cri_tools, images
from tests.vm.node import IMAGE, SOCKET, Node

CRITEST_IMAGE = "registry.k8s.io/e2e-test-images/busybox:1.29-2"

DENY_WRITE = """
profile noded-vm-deny-write flags=(attach_disconnected) {
  file,
  network,
  capability,
  signal,
  deny /tmp/** w,
}
"""


def _container(node: Node, kind: str | None, reference: str = "", *, old_field: str = "") -> str:
    pod_id, config = node.run_pod()
    container = node.cri.container_config("main", IMAGE, ["sleep", "1000"])
    security = container.linux.security_context
    if old_field:
        security.apparmor_profile = old_field
    if kind is not None:
        value = node.cri.pb.SecurityProfile.ProfileType.Value(kind)
        security.apparmor.CopyFrom(node.cri.pb.SecurityProfile(profile_type=value, localhost_ref=reference))
    # What the read-only mounts keep out already would prove nothing about AppArmor.
    security.readonly_paths.append("/proc/bus")
    security.masked_paths.append("/proc/acpi")
    return node.cri.run_container(pod_id, container, config)


@pytest.mark.parametrize("kind", [None, "RuntimeDefault"])
def test_the_default_profile_confines_a_container_that_names_none(node: Node, kind: str | None) -> None:
    container_id = _container(node, kind)
    assert node.output(container_id, "cat", "/proc/self/attr/current").strip() == "noded-default (enforce)"
    assert "noded-default (enforce)" in node.guest.read("/sys/kernel/security/apparmor/profiles")
    before = node.guest.read("/proc/sys/vm/swappiness")
    denied = node.cri.exec(container_id, "sh", "-c", "echo 1 >/proc/sys/vm/swappiness")
    assert denied.exit_code != 0
    assert b"Permission denied" in denied.stderr
    assert node.guest.read("/proc/sys/vm/swappiness") == before
    node.output(container_id, "sh", "-c", "echo x >/tmp/x && kill -0 1")


def test_stop_signals_pass_the_default_profile(node: Node) -> None:
    pod_id, config = node.run_pod()
    script = "trap 'exit 7' TERM; while true; do sleep 0.1; done"
    container = node.cri.container_config("main", IMAGE, ["sh", "-c", script])
    container_id = node.cri.run_container(pod_id, container, config)
    node.cri.stop(container_id, 60)
    assert node.wait_exited(container_id).exit_code == 7


def test_a_profile_of_the_node_is_enforced(node: Node) -> None:
    node.guest.write("/tmp/profile", DENY_WRITE)
    node.guest.run("apparmor_parser", "--replace", "/tmp/profile")
    named = ("Localhost", "localhost/noded-vm-deny-write")
    for container_id in (
        _container(node, *named),
        _container(node, None, old_field="localhost/noded-vm-deny-write"),
    ):
        assert node.output(container_id, "cat", "/proc/self/attr/current").startswith("noded-vm-deny-write (")
        denied = node.cri.exec(container_id, "sh", "-c", "echo x >/tmp/x")
        assert denied.exit_code != 0
        assert b"Permission denied" in denied.stderr


def test_an_unconfined_container_is_not_confined(node: Node) -> None:
    container_id = _container(node, "Unconfined")
    label = node.output(container_id, "cat", "/proc/self/attr/current").strip()
    assert "enforce" not in label


def test_a_profile_that_is_not_loaded_is_refused_by_name(node: Node) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        _container(node, "Localhost", "not-there")
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "'not-there' is not loaded" in refused.value.details()
    assert "localhost_ref" in refused.value.details()


def test_a_default_profile_that_somebody_removed_is_loaded_again(node: Node) -> None:
    _container(node, None)
    node.remove_all_pods()
    node.guest.shell("printf noded-default >/sys/kernel/security/apparmor/.remove")
    container_id = _container(node, None)
    assert node.output(container_id, "cat", "/proc/self/attr/current").strip() == "noded-default (enforce)"


def test_critest_finds_apparmor_as_it_wants_it(node: Node, tmp_path: Path) -> None:
    try:
        program = cri_tools.find("critest")
    except cri_tools.NotHere as error:
        pytest.skip(str(error))
    node.guest.write("/var/tmp/critest", Path(program).read_bytes(), 0o755)
    # It loads its profiles by "sudo apparmor_parser"; the guest has no sudo, and is root already.
    node.guest.write("/usr/local/bin/sudo", b'#!/bin/sh\nexec "$@"\n', 0o755)
    layout = images.write_layout(images.busybox_image(), tmp_path / "layout", CRITEST_IMAGE)
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(layout, arcname=".")
    node.guest.write("/var/tmp/critest-image.tar", (tmp_path / "image.tar").read_bytes())
    node.cri.load(Path("/var/tmp/critest-image.tar"))
    said = node.guest.run(
        "/var/tmp/critest",
        f"-runtime-endpoint=unix://{SOCKET}",
        f"-image-endpoint=unix://{SOCKET}",
        "-runtime-service-timeout=240s",
        "-ginkgo.focus=AppArmor",
        "-ginkgo.flake-attempts=0",
        "-ginkgo.no-color",
        "-ginkgo.timeout=40m",
        seconds=2400,
        status=None,
    )
    counted = re.search(r"(\d+) Passed \| (\d+) Failed \| (\d+) Pending", said)
    assert counted, said[-4000:]
    assert counted.groups() == ("9", "0", "0"), said[-8000:]
