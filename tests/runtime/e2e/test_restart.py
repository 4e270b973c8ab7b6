"""The daemon dies; pods do not notice, and clients see the same objects afterwards."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.runtime.e2e.conftest import HOST
from tests.support.daemon import NodedDaemon
from tests.support.unseen_exit import assert_told_truly

pytestmark = pytest.mark.root


class HeldBack(NodedDaemon):
    """A daemon that imports its core when the test says so."""

    module = "tests.runtime.e2e.held_back"


def facts(cri) -> dict[str, tuple]:
    """What must not change over a restart."""
    pods = {
        pod.id: (pod.created_at, pod.state, cri.pod_ip(pod.id), cri.pod_status(pod.id).status.metadata.name)
        for pod in cri.pods()
    }
    containers = {
        one.id: (one.created_at, one.state, one.image_id, cri.status(one.id).started_at)
        for one in cri.containers()
    }
    return {**pods, **containers}


def test_live_pods_survive_a_kill_of_the_daemon(daemon, cri, busybox, oracle, counts):
    daemon.restart(hard=True)  # so that no connection to the registry is left
    cri.stop("0" * 64)
    before = oracle.take()
    for number in range(counts(4, 10)):
        config = daemon.pod_config(cri, pid="POD" if number % 2 else "CONTAINER")
        pod = cri.run_pod(config, "crun" if number % 3 else "runc")
        main = cri.container_config(
            "main", busybox, ["sleep", "1000"], pid="POD" if number % 2 else "CONTAINER"
        )
        cri.run_container(pod, main, config)
    seen = facts(cri)
    daemon.restart(hard=True)
    assert facts(cri) == seen
    for container in cri.containers():
        assert cri.exec(container.id, "echo", "alive").stdout == b"alive\n"
    cri.remove_all_pods()
    oracle.assert_unchanged(before, settle_seconds=20)


def test_lists_are_answered_before_the_core_is_there(tmp_path, pushed):
    """From the database, as the core will answer them; whatever else is asked waits for it."""
    hold = tmp_path / "hold"
    hold.touch()  # the first start goes on at once
    daemon = HeldBack(tmp_path, mirrors={HOST: pushed.host}, environment={"NODED_TEST_HOLD": str(hold)})
    image, waiting = f"{HOST}/e2e/busybox:1", []
    with daemon, daemon.client() as cri:
        cri.pull(image)
        config = daemon.pod_config(cri, labels={"app": "web"}, annotations={"note": "kept"})
        pod = cri.run_pod(config)
        main = cri.run_container(pod, cri.container_config("main", image, ["sleep", "1000"]), config)
        cri.wait_exited(cri.run_container(pod, cri.container_config("done", image, ["true"]), config))
        before = {one.id: one for one in (*cri.pods(), *cri.containers())}
        assert len(before) == 3
        daemon.kill()
        hold.unlink()
        os.mkfifo(hold)

        def meanwhile() -> None:
            with hold.open("wb"):  # held at the import from here, until it is closed
                running = cri.pb.ContainerStateValue(state=cri.pb.CONTAINER_RUNNING)
                request = cri.pb.ListContainersRequest(filter=cri.pb.ContainerFilter(state=running))
                filtered = cri.runtime.ListContainers.future(request, timeout=60)
                stop = cri.pb.StopContainerRequest(container_id=main, timeout=0)
                waiting.extend((filtered, cri.runtime.StopContainer.future(stop, timeout=60)))
                for _ in range(2):
                    assert {one.id: one for one in (*cri.pods(), *cri.containers())} == before
                assert not any(call.done() for call in waiting)

        daemon.start(meanwhile=meanwhile)
        assert {one.id for one in waiting[0].result().containers} <= {main}
        waiting[1].result()
        assert cri.wait_exited(main).state == cri.pb.CONTAINER_EXITED
        assert "lists_answered_before=4" in daemon.log_text()


def test_an_exit_while_the_daemon_was_down_is_told_truly(daemon, cri, busybox, tmp_path):
    assert_told_truly(daemon, cri, busybox, "runc", tmp_path)


def test_a_restart_by_sigterm_ends_with_status_zero_and_keeps_pods(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    seen = facts(cri)
    assert daemon.stop() == 0
    assert not Path(daemon.socket).exists()
    daemon.start()
    assert facts(cri) == seen
    assert cri.exec(container, "true").exit_code == 0


def test_a_kill_during_creates_leaves_nothing_half_made(daemon, cri, busybox, oracle, rng, counts):
    import threading

    import grpc

    daemon.restart(hard=True)  # so that no connection to the registry is left
    cri.stop("0" * 64)
    before = oracle.take()
    for _ in range(counts(4, 20)):
        config = daemon.pod_config(cri)
        failures = []

        def create(config=config, failures=failures) -> None:
            try:
                pod = cri.run_pod(config, timeout=10)
                cri.create(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config, timeout=10)
            except grpc.RpcError as error:
                failures.append(error.code())

        client = threading.Thread(target=create)
        client.start()
        client.join(rng.uniform(0.01, 0.35))
        daemon.kill()
        client.join()
        daemon.start()
        cri.remove_all_pods()
    oracle.assert_unchanged(before, settle_seconds=20)


def test_a_created_container_can_be_started_after_a_restart(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.create(pod, cri.container_config("main", busybox, ["/bin/sh", "-c", "exit 7"]), config)
    daemon.restart(hard=True)
    cri.start(container)
    assert cri.wait_exited(container).exit_code == 7


def test_an_idle_daemon_is_small(daemon, cri):
    """80 MB of resident memory is the limit of this stage; tests/bench looks closer."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    resident_kib = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kib < 80 * 1024
