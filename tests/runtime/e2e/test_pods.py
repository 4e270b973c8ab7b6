"""Pods as kubelet makes them, on every handler, ending with the host as it was."""

from __future__ import annotations

import json
import socket
import urllib.request
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.one_daemon]


def get(url: str) -> bytes:
    """One HTTP request, without any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return bytes(answer.read())


def log_text(daemon, config, name: str) -> str:
    """The payload of a container's CRI log."""
    path = Path(config.log_directory) / f"{name}.log"
    return "".join(line.split(" ", 3)[3] for line in path.read_text().splitlines(keepends=True))


def test_a_container_runs_logs_execs_and_leaves_nothing(daemon, cri, busybox, handler, oracle):
    before = oracle.take()
    config = daemon.pod_config(cri, "web")
    pod = cri.run_pod(config, handler)
    assert cri.pod_ip(pod).startswith("10.")
    container = cri.run_container(
        pod, cri.container_config("main", busybox, ["/bin/sh", "-c", "echo hello; sleep 1000"]), config
    )
    answer = cri.exec(container, "/bin/sh", "-c", "hostname; echo problem >&2; exit 3")
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"web\n", b"problem\n", 3)
    status = cri.status(container)
    assert status.state == cri.pb.CONTAINER_RUNNING
    assert status.image.image == busybox
    assert status.image_id == status.image_ref
    assert status.started_at >= status.created_at > 0
    cri.stop(container)
    ended = cri.wait_exited(container)
    assert ended.exit_code == 137
    assert ended.finished_at >= ended.started_at
    assert log_text(daemon, config, "main") == "hello\n"
    cri.remove_pod(pod)
    assert cri.pods() == []
    assert cri.containers() == []
    oracle.assert_unchanged(before)


def test_a_web_server_answers_on_the_pod_address(daemon, cri, http, handler):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    cri.run_container(pod, cri.container_config("web", http), config)
    assert b"web server in a pod" in get_when_up(f"http://{cri.pod_ip(pod)}/")


def get_when_up(url: str) -> bytes:
    """The server's own start takes a moment, of which nobody tells."""
    import time

    deadline = time.monotonic() + 10
    while True:
        try:
            return get(url)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_a_host_port_reaches_the_pod(daemon, cri, http):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = daemon.pod_config(cri, ports=[(port, 80)])
    pod = cri.run_pod(config)
    cri.run_container(pod, cri.container_config("web", http), config)
    assert b"web server in a pod" in get_when_up(f"http://{cri.pod_ip(pod)}/")
    gateway = cri.pod_ip(pod).rsplit(".", 1)[0] + ".1"
    assert b"web server in a pod" in get(f"http://{gateway}:{port}/")


def test_a_host_network_pod_sees_the_hosts_links_and_has_no_address(daemon, cri, busybox):
    config = daemon.pod_config(cri, network="NODE")
    pod = cri.run_pod(config)
    assert cri.pod_ip(pod) == ""
    container = cri.run_container(
        pod, cri.container_config("main", busybox, ["sleep", "1000"], network="NODE"), config
    )
    inside = cri.exec(container, "cat", "/proc/net/dev").stdout.decode()
    outside = Path("/proc/net/dev").read_text()
    names = [line.split(":")[0].strip() for line in outside.splitlines()[2:]]
    assert all(f"{name}:" in inside for name in names)
    assert cri.exec(container, "hostname").stdout.decode().strip() == socket.gethostname()


def test_two_containers_share_network_and_pids(daemon, cri, busybox, http, handler):
    config = daemon.pod_config(cri, pid="POD")
    pod = cri.run_pod(config, handler)
    cri.run_container(pod, cri.container_config("web", http, pid="POD"), config)
    other = cri.run_container(
        pod, cri.container_config("other", busybox, ["sleep", "1000"], pid="POD"), config
    )
    get_when_up(f"http://{cri.pod_ip(pod)}/")
    assert b"web server" in cri.exec(other, "wget", "-qO-", "http://127.0.0.1/").stdout
    processes = cri.exec(other, "ps", "-o", "pid,args").stdout.decode()
    assert "httpd" in processes
    assert "sleep 1000" in processes
    assert "1 /init" in processes


def test_an_ephemeral_container_joins_the_pids_of_its_target(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    target = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "4321"]), config)
    debug = cri.container_config("debug", busybox, ["sleep", "1000"], pid="TARGET")
    debug.linux.security_context.namespace_options.target_id = target
    container = cri.run_container(pod, debug, config)
    assert b"sleep 4321" in cri.exec(container, "ps", "-o", "args").stdout


def test_a_container_over_its_memory_limit_ends_oomkilled(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    hog = cri.container_config(
        "hog",
        busybox,
        ["/bin/sh", "-c", "dd if=/dev/zero of=/dev/null bs=64M count=1"],
        memory_bytes=15 << 20,
    )
    container = cri.run_container(pod, hog, config)
    status = cri.wait_exited(container)
    assert (status.exit_code, status.reason) == (137, "OOMKilled")


def test_a_hundred_megabytes_of_log_arrive_whole(daemon, cri, busybox, counts):
    megabytes = counts(20, 100)
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    line = "x" * 1023
    script = f"i=0; while [ $i -lt {megabytes} ]; do yes {line} | head -n 1024; i=$((i+1)); done"
    container = cri.run_container(
        pod, cri.container_config("chatty", busybox, ["/bin/sh", "-c", script]), config
    )
    status = cri.wait_exited(container, 120)
    assert status.exit_code == 0
    with (Path(config.log_directory) / "chatty.log").open("rb") as log:
        total = sum(len(entry.split(b" ", 3)[3]) for entry in log)
    assert total == megabytes << 20


def test_status_shows_what_was_asked(daemon, cri, busybox, tmp_path):
    (tmp_path / "data").mkdir()
    config = daemon.pod_config(cri, "attributes", labels={"a": "1"}, annotations={"b": "2"})
    pod = cri.run_pod(config)
    status = cri.pod_status(pod).status
    assert status.metadata == config.metadata
    assert dict(status.labels) == {"a": "1"}
    assert dict(status.annotations) == {"b": "2"}
    wanted = cri.container_config(
        "main",
        busybox,
        ["sleep", "1"],
        mounts=[(tmp_path / "data", "/data")],
        labels={"c": "3"},
        annotations={"d": "4"},
        log_path="main/0.log",
    )
    container = cri.create(pod, wanted, config)
    seen = cri.status(container)
    assert dict(seen.labels) == {"c": "3"}
    assert dict(seen.annotations) == {"d": "4"}
    assert [(mount.host_path, mount.container_path) for mount in seen.mounts] == [
        (str(tmp_path / "data"), "/data")
    ]
    assert seen.log_path == str(Path(config.log_directory) / "main/0.log")
    cri.start(container)
    assert Path(seen.log_path).exists()  # in a directory that nobody had made
    assert json.loads(cri.verbose_status(container).info["info"])["sandboxID"] == pod


def test_sysctls_dns_and_shared_memory_are_the_pods_own(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri, sysctls={"kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "0"})
    config.dns_config.servers.append("10.96.0.10")
    config.dns_config.searches.append("svc.cluster.local")
    config.dns_config.options.append("ndots:5")
    pod = cri.run_pod(config, handler)
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    assert cri.exec(container, "cat", "/proc/sys/kernel/shm_rmid_forced").stdout == b"1\n"
    assert cri.exec(container, "cat", "/etc/resolv.conf").stdout == (
        b"search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    cri.exec(container, "/bin/sh", "-c", "echo shared >/dev/shm/x")
    second = cri.run_container(pod, cri.container_config("second", busybox, ["sleep", "1000"]), config)
    assert cri.exec(second, "cat", "/dev/shm/x").stdout == b"shared\n"


def test_a_log_reopens_after_rotation(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(
        pod,
        cri.container_config("main", busybox, ["/bin/sh", "-c", "while :; do echo tick; sleep 0.05; done"]),
        config,
    )
    log = Path(config.log_directory) / "main.log"
    log.rename(log.with_suffix(".1"))
    cri.runtime.ReopenContainerLog(cri.pb.ReopenContainerLogRequest(container_id=container), timeout=10)
    assert log.exists()


def test_limits_change_in_place(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, handler)
    container = cri.run_container(
        pod, cri.container_config("main", busybox, ["sleep", "1000"], memory_bytes=64 << 20), config
    )
    request = cri.pb.UpdateContainerResourcesRequest(
        container_id=container,
        linux=cri.pb.LinuxContainerResources(memory_limit_in_bytes=128 << 20, cpu_shares=512),
    )
    cri.runtime.UpdateContainerResources(request, timeout=20)
    resources = cri.status(container).resources.linux
    assert (resources.memory_limit_in_bytes, resources.cpu_shares) == (128 << 20, 512)
    seen = cri.exec(
        container,
        "/bin/sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null",
    )
    assert seen.stdout.split() == [b"134217728"]


@pytest.mark.parametrize("pid", ["POD", "CONTAINER"])
def test_a_pod_with_a_user_namespace_may_share_its_processes(daemon, cri, busybox, handler, pid):
    features = {one.name: one.features for one in cri.runtime.Status(cri.pb.StatusRequest()).runtime_handlers}
    if not features[handler].user_namespaces:
        pytest.skip(f"{handler} here cannot map the files of a user namespace")
    mapping = [cri.pb.IDMapping(host_id=200000, container_id=0, length=65536)]
    userns = cri.pb.UserNamespace(mode=cri.pb.POD, uids=mapping, gids=mapping)
    config = daemon.pod_config(cri, pid=pid)
    config.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    pod = cri.run_pod(config, handler)
    main = cri.container_config("main", busybox, ["sleep", "1000"], pid=pid)
    main.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    container = cri.run_container(pod, main, config)
    answer = cri.exec(container, "sh", "-c", "cat /proc/self/uid_map; cat /proc/1/comm")
    assert answer.stdout.split()[:3] == [b"0", b"200000", b"65536"]
    assert answer.stdout.split()[3] == (b"init" if pid == "POD" else b"sleep")
    cri.remove_pod(pod)
