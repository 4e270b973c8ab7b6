"""noded's service under systemd: its restarts, its upgrade, the node's reboot, its removal."""

from __future__ import annotations

import signal

import pytest

from tests.vm.node import IMAGE, SOCKET, Node

MADE = (
    "find / -xdev \\( -name '*noded*' -o -path '*/noded/*' \\) -not -path '/usr/share/*' "
    "-not -path '/etc/systemd/system/noded-vm-agent.service' -not -path '/etc/systemd/system/*/noded-vm-*' "
    "-not -path '/var/lib/dpkg/*' -not -path '/var/lib/apt/*' -not -path '/var/log/*' "
    "-not -path '/var/cache/*' "
    "-not -path '/tmp/*' "
    # The administrator's, and what the host-local plugin keeps of a network that has no address in use.
    "-not -path '/etc/cni/net.d/10-noded-bridge.conflist' -not -path '/var/lib/cni/networks/noded-bridge'"
)


@pytest.fixture
def pods(node: Node) -> dict[str, int]:
    """A running container on each runtime, with its process."""
    made = {}
    for handler in ("runc", "crun"):
        pod_id, config = node.run_pod(handler)
        container = node.cri.container_config("main", IMAGE, ["sleep", "100000"])
        container_id = node.cri.run_container(pod_id, container, config)
        made[container_id] = node.container_pid(container_id)
    return made


def assert_untouched(node: Node, pods: dict[str, int]) -> None:
    for container_id, pid in pods.items():
        assert node.cri.status(container_id).state == node.cri.pb.CONTAINER_RUNNING
        assert node.container_pid(container_id) == pid
        assert node.output(container_id, "echo", "alive") == "alive\n"


def test_a_restart_of_the_service_restarts_no_pod(node: Node, pods: dict[str, int]) -> None:
    before = node.main_pid()
    node.guest.run("systemctl", "restart", "noded")
    assert node.main_pid() != before
    assert_untouched(node, pods)


def test_a_killed_daemon_is_started_again_and_takes_over_its_pods(node: Node, pods: dict[str, int]) -> None:
    before = node.main_pid()
    node.guest.run("kill", f"-{signal.SIGKILL}", str(before))
    node.guest.shell(
        'while [ "$(systemctl show --value -p MainPID noded)" = "$1" ] || ! systemctl -q is-active noded; '
        "do sleep 0.2; done",
        str(before),
    )
    assert_untouched(node, pods)


def test_a_daemon_that_hangs_is_killed_by_the_watchdog(node: Node, pods: dict[str, int]) -> None:
    before = node.main_pid()
    node.guest.run("kill", f"-{signal.SIGSTOP}", str(before))
    node.guest.shell(
        'while [ "$(systemctl show --value -p MainPID noded)" = "$1" ] || ! systemctl -q is-active noded; '
        "do sleep 0.5; done",
        str(before),
    )
    assert "watchdog" in node.guest.run("journalctl", "-u", "noded", "-n", "60", "--no-pager").lower()
    assert_untouched(node, pods)


def test_an_upgrade_of_the_package_restarts_the_daemon_and_no_pod(node: Node, pods: dict[str, int]) -> None:
    before = node.main_pid()
    node.install(2)
    assert node.guest.run("dpkg-query", "-Wf", "${Version}", "noded").endswith("-2")
    assert node.main_pid() != before
    assert_untouched(node, pods)


def test_systemd_holds_the_socket_while_the_daemon_is_away(node: Node, pods: dict[str, int]) -> None:
    node.guest.shell("systemctl stop noded; systemctl start noded.socket")
    try:
        node.guest.shell(f"test -S {SOCKET}")
        assert node.property("ActiveState") == "inactive"
        assert node.guest.run("noded", "pods", "--timeout", "300", seconds=400)  # starts the daemon
        # It answers lists before it tells systemd that it is ready.
        assert node.property("ActiveState") in ("activating", "active")
        before = node.main_pid()
        node.guest.run("systemctl", "start", "noded")  # waits until it is ready
        assert node.property("ActiveState") == "active"
        assert node.main_pid() == before
        assert_untouched(node, pods)
    finally:
        node.guest.shell("systemctl stop noded noded.socket; systemctl start noded")


def test_after_a_reboot_pods_are_not_ready_and_nothing_is_stale(node: Node, pods: dict[str, int]) -> None:
    node.guest.reboot()
    node.guest.run("systemctl", "start", "noded")
    pb = node.cri.pb
    assert {pod.state for pod in node.cri.pods()} == {pb.SANDBOX_NOTREADY}
    assert {container.state for container in node.cri.containers()} == {pb.CONTAINER_EXITED}
    node.remove_all_pods()
    assert node.guest.run("find", "/run/netns", "-name", "noded-*", status=None).count("/noded-") == 0
    assert "noded" not in node.guest.shell(
        "cut -d' ' -f5 /proc/self/mountinfo | grep /var/lib/noded/ || true"
    )
    pod_id, config = node.run_pod()
    node.cri.run_container(pod_id, node.cri.container_config("main", IMAGE, ["sleep", "1000"]), config)


def test_purge_with_live_pods_leaves_no_file_mount_namespace_or_process(
    node: Node, pods: dict[str, int]
) -> None:
    node.guest.run("apt-get", "-q", "-y", "purge", "noded", "noded-plugin-runc")
    assert node.guest.run("sh", "-c", MADE) == ""
    assert node.guest.run("find", "/var/lib/cni/networks", "-name", "10.*") == ""
    assert "noded" not in node.guest.read("/proc/self/mountinfo").replace("noded-vm", "")
    assert node.guest.shell("ls /run/netns 2>/dev/null || true") == ""
    for pid in pods.values():
        assert node.guest.run("test", "-e", f"/proc/{pid}", status=None) == ""
        node.guest.run("test", "!", "-e", f"/proc/{pid}")
    assert "noded-" not in node.guest.shell("find /sys/fs/cgroup -name 'noded-*' -not -name 'noded-vm-*'")
    assert node.guest.run("ip", "-o", "link", "show", "type", "veth") == ""
    # The bridge stays: it is the network's, whose configuration is the administrator's.
    assert "noded" not in node.guest.shell("iptables-save 2>/dev/null || true")
