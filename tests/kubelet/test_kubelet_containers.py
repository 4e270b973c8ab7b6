"""Containers: what kubelet reads from their statuses, and how it starts, probes and ends them."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.kubelet.conftest import HOST
from tests.kubelet.kubelet import TERMINATION_LOG, Container, Kubelet
from tests.support.oracle import Oracle

pytestmark = pytest.mark.root


def test_a_dead_container_is_followed_by_the_next_attempt(kubelet, pod, cri):
    mine = pod("sh", "-c", "exit 1")
    for _ in range(3):
        kubelet.sync(mine)
        cri.wait_exited(kubelet.newest(mine).id)
    containers = kubelet.pod_status(mine.uid)[1]
    assert [(one.metadata.attempt, one.exit_code) for one in containers] == [(2, 1), (1, 1), (0, 1)]
    assert [one.annotations["io.kubernetes.container.restartCount"] for one in containers] == ["2", "1", "0"]


def test_the_image_is_named_as_the_user_named_it_and_by_one_id(kubelet, standing):
    mine = standing
    status = kubelet.newest(mine)
    image = kubelet.call("ImageStatus", image={"image": mine.containers[0].image}).image
    (listed,) = (one for one in kubelet.call("ListContainers").containers if one.id == status.id)
    assert status.image.image == mine.containers[0].image
    assert image.id == status.image_id == listed.image_id == status.image_ref
    assert kubelet.call("PullImage", None, image={"image": mine.containers[0].image}).image_ref == image.id


def test_labels_and_annotations_of_a_container_are_unaltered(kubelet, standing):
    mine = standing
    status = kubelet.newest(mine)
    config = kubelet.container_config(mine, mine.containers[0], status.image_id, 0)
    assert status.labels == config.labels
    assert status.annotations == config.annotations
    assert status.metadata == config.metadata


def test_the_log_is_there_right_after_the_start_under_the_absolute_path_of_the_status(kubelet, standing):
    mine = standing
    status = kubelet.newest(mine)
    link = kubelet.link(mine, "main", status.id)
    assert link.is_symlink()  # kubelet makes it only when the log exists
    assert Path(status.log_path) == kubelet.log_directory(mine) / "main" / "0.log"


def test_a_log_of_an_earlier_life_is_never_truncated(kubelet, pod):
    mine = pod("sh", "-c", "echo new; sleep 1000")
    directory = kubelet.log_directory(mine) / "main"
    directory.mkdir(parents=True)
    (directory / "0.log").write_text("2026-01-01T00:00:00.000000000Z stdout F old\n")
    kubelet.sync(mine)  # the runtime was wiped: the count comes from the logs that are left
    assert kubelet.newest(mine).metadata.attempt == 1
    assert "old" in (directory / "0.log").read_text()


def test_the_message_of_a_dead_container_is_read_at_the_host_path_of_its_mount(kubelet, pod, cri):
    mine = pod("sh", "-c", f"echo because >{TERMINATION_LOG}; exit 4", restart=False)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    (mount,) = (one for one in status.mounts if one.container_path == TERMINATION_LOG)
    assert Path(mount.host_path).read_text() == "because\n"


@pytest.mark.parametrize(("code", "reason"), [(0, "Completed"), (9, "Error")])
def test_an_exit_has_its_code_its_reason_and_its_times(kubelet, pod, cri, code, reason):
    mine = pod("sh", "-c", f"exit {code}", restart=False)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    assert (status.exit_code, status.reason) == (code, reason)
    assert status.created_at <= status.started_at <= status.finished_at


def test_a_container_killed_for_memory_says_so(kubelet, pod, cri):
    mine = pod("sh", "-c", "tail /dev/zero", restart=False, memory_bytes=32 << 20)
    kubelet.sync(mine)
    status = cri.wait_exited(kubelet.newest(mine).id)
    assert (status.reason, status.exit_code) == ("OOMKilled", 137)


def test_a_program_that_is_not_there_is_reported_and_does_not_start_again_by_itself(kubelet, pod):
    mine = pod("/no/such/program", restart=False)
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.sync(mine)
    assert "/no/such/program" in caught.value.details().splitlines()[0]
    statuses = kubelet.pod_status(mine.uid)[1]
    assert all(one.state in (kubelet.pb.CONTAINER_CREATED, kubelet.pb.CONTAINER_EXITED) for one in statuses)


def test_a_status_tells_the_user_and_the_resources(kubelet, pod):
    mine = pod(memory_bytes=64 << 20)
    kubelet.sync(mine)
    status = kubelet.newest(mine)
    assert (status.user.linux.uid, status.user.linux.gid) == (0, 0)
    assert status.resources.linux.memory_limit_in_bytes == 64 << 20


def test_a_resize_is_seen_in_the_status_and_restarts_nothing(kubelet, pod, cri):
    mine = pod(memory_bytes=64 << 20)
    kubelet.sync(mine)
    before = kubelet.newest(mine)
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    wanted = {"memory_limit_in_bytes": 96 << 20, "cpu_shares": 512, "cpu_period": 100000, "cpu_quota": 50000}
    kubelet.call("UpdatePodSandboxResources", pod_sandbox_id=sandbox, resources=wanted)
    kubelet.call("UpdateContainerResources", container_id=before.id, linux=wanted)
    after = kubelet.newest(mine)
    assert {key: getattr(after.resources.linux, key) for key in wanted} == wanted
    assert (after.id, after.state, after.started_at) == (before.id, before.state, before.started_at)
    kubelet.sync(mine)
    assert kubelet.calls["CreateContainer"] == 1


def test_the_hook_after_the_start_may_leave_a_process_behind(kubelet, pod, cri):
    mine = pod(post_start=("sh", "-c", "sleep 4321 & echo started"))
    kubelet.sync(mine)
    assert b"4321" in cri.exec(kubelet.newest(mine).id, "ps").stdout


def test_parallel_stops_end_all_containers_and_then_the_sandbox(kubelet, pod):
    mine = pod()
    first = mine.containers[0]
    mine.containers += [Container(name, first.image, first.command) for name in ("second", "third")]
    kubelet.sync(mine)
    kubelet.kill(mine)
    sandboxes, containers = kubelet.pod_status(mine.uid)
    assert [one.state for one in containers] == [kubelet.pb.CONTAINER_EXITED] * 3
    assert {one.exit_code for one in containers} == {0}  # by SIGTERM, within the grace
    assert sandboxes[0].state == kubelet.pb.SANDBOX_NOTREADY


def test_a_hook_without_a_deadline_may_take_its_time(kubelet, standing):
    """preStop and postStart: a timeout of 0 is none."""
    container = kubelet.newest(standing).id
    answer = kubelet.call("ExecSync", None, container_id=container, cmd=["sleep", "2"], timeout=0)
    assert answer.exit_code == 0


def test_an_image_volume_is_named_by_the_id_of_its_image(kubelet, pod, cri):
    mine = pod()
    kubelet.sync(mine)
    image, sandbox = kubelet.newest(mine).image_id, kubelet.pod_status(mine.uid)[0][0].id
    config = kubelet.container_config(mine, mine.containers[0], image, 7)
    mount = config.mounts.add(container_path="/data", readonly=True)
    mount.image.image = f"{HOST}/kubelet/busybox:1"
    made = cri.create(sandbox, config, kubelet.pod_config(mine, 0))
    mounts = {one.container_path: one for one in kubelet.container(made).mounts}
    assert mounts["/data"].image.image_ref == image


def test_an_ephemeral_container_shares_the_processes_of_its_target(kubelet, standing, cri):
    mine = standing
    target = kubelet.newest(mine)
    (sandbox,) = kubelet.pod_status(mine.uid)[0]
    debugger = Container("debugger", mine.containers[0].image, ("sleep", "1000"))
    config = kubelet.container_config(mine, debugger, target.image_id, 0)
    options = config.linux.security_context.namespace_options
    options.pid, options.target_id = kubelet.pb.TARGET, target.id
    (kubelet.log_directory(mine) / "debugger").mkdir()
    made = cri.run_container(sandbox.id, config, kubelet.pod_config(mine, 0))
    assert b"trap 'exit 0' TERM" in cri.exec(made, "ps").stdout


def test_dead_containers_are_collected_but_the_newest(kubelet: Kubelet, pod, cri):
    mine = pod("sh", "-c", "exit 0")
    for _ in range(3):
        kubelet.sync(mine)
        cri.wait_exited(kubelet.newest(mine).id)
    kept = kubelet.newest(mine).id
    assert len(kubelet.collect_containers()) == 2
    assert [one.id for one in kubelet.pod_status(mine.uid)[1]] == [kept]
    assert kubelet.collect_containers() == []


def test_a_deleted_pod_is_gone_from_every_list(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    kubelet.relist()
    kubelet.delete(mine)
    assert {change.kind for change in kubelet.relist()} >= {"REMOVED"}
    assert kubelet.pod_status(mine.uid) == ([], [])


def test_pods_come_and_go_and_leave_nothing(kubelet, pod, daemon, counts):
    first = pod()
    kubelet.sync(first)
    kubelet.delete(first)
    oracle = Oracle(daemon)
    before = oracle.take()
    for _ in range(counts(2, 50)):
        pods = [pod() for _ in range(2)]
        for one in pods:
            kubelet.sync(one)
        kubelet.relist()
        for one in pods:
            kubelet.delete(one)
        kubelet.relist()
    oracle.assert_unchanged(before, settle_seconds=20)
