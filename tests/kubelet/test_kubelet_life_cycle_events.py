"""Relists of the pod life cycle event generator, and the stream of events that can replace them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.kubelet.kubelet import UID_LABEL, Change
from tests.support.events import Follower

pytestmark = pytest.mark.root


def test_a_relist_sees_the_start_the_death_and_the_removal_of_a_container(kubelet, pod, cri):
    mine = pod("sh", "-c", "exit 3", restart=False)
    kubelet.relist()
    kubelet.sync(mine)
    container = kubelet.newest(mine).id
    cri.wait_exited(container)
    changes = kubelet.relist()
    assert Change("DIED", mine.uid, container) in changes
    kubelet.remove_container(container)
    assert kubelet.relist() == [Change("REMOVED", mine.uid, container)]


def test_a_quiet_node_costs_two_calls_a_relist_however_many_pods(kubelet, pod):
    for _ in range(3):
        kubelet.sync(pod())
    kubelet.relist()
    before = kubelet.calls.total()
    assert kubelet.relist() == []
    assert kubelet.calls.total() - before == 2


def test_lists_are_answered_while_a_container_of_the_pod_is_being_stopped(kubelet, pod, cri):
    """A relist must not wait for a grace period: kubelet is unhealthy after three minutes without one."""
    mine = pod("sh", "-c", "trap 'echo told' TERM; while :; do sleep 0.1; done")
    kubelet.sync(mine)
    container = kubelet.newest(mine)
    stop = threading.Thread(target=kubelet.stop, args=(container.id, 3))
    stop.start()
    log = Path(container.log_path)
    while b"told" not in log.read_bytes():  # the grace period has begun
        assert stop.is_alive()
        time.sleep(0.01)
    kubelet.relist()
    assert kubelet.container(container.id).state == kubelet.pb.CONTAINER_RUNNING
    assert stop.is_alive()
    cri.stop(container.id, 0)
    stop.join(30)
    assert not stop.is_alive()


def test_lists_carry_the_uid_that_pods_and_containers_are_matched_by(kubelet, standing):
    mine = standing
    (sandbox,) = (one for one in kubelet.call("ListPodSandbox").items if one.metadata.uid == mine.uid)
    containers = kubelet.call("ListContainers").containers
    assert [one.pod_sandbox_id for one in containers if one.labels[UID_LABEL] == mine.uid] == [sandbox.id]


def test_creation_times_of_a_pod_never_go_back(kubelet, pod, cri):
    mine = pod("sh", "-c", "exit 0")
    for _ in range(3):
        kubelet.sync(mine)
        cri.wait_exited(kubelet.newest(mine).id)
    sandboxes, containers = kubelet.pod_status(mine.uid)
    assert [int(one.metadata.attempt) for one in containers] == [2, 1, 0]
    times = [one.created_at for one in reversed(containers)]
    assert 0 < sandboxes[0].created_at < times[0] < times[1] < times[2]


def test_a_container_that_is_created_but_not_started_is_told_so(kubelet, pod, cri):
    mine = pod()
    kubelet.sync(mine)
    (sandbox,) = kubelet.pod_status(mine.uid)[0]
    config = kubelet.container_config(mine, mine.containers[0], kubelet.newest(mine).image_id, 7)
    kubelet.relist()
    made = cri.create(sandbox.id, config, kubelet.pod_config(mine, 0))
    assert kubelet.relist() == [Change("CHANGED", mine.uid, made)]
    status = kubelet.container(made)
    assert (status.state, status.started_at, status.finished_at) == (kubelet.pb.CONTAINER_CREATED, 0, 0)


def test_an_evented_generator_learns_a_death_without_a_relist(kubelet, pod, cri):
    mine = pod("sh", "-c", "exit 3", restart=False)
    with Follower(cri) as follower:
        kubelet.sync(mine)
        events = follower.take(5)
    container = events[2].container_id
    pb = kubelet.pb
    assert [one.container_event_type for one in events] == [
        pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT,
        pb.CONTAINER_CREATED_EVENT, pb.CONTAINER_STARTED_EVENT, pb.CONTAINER_STOPPED_EVENT,
    ]  # fmt: skip
    (status,) = events[-1].containers_statuses
    assert (status.id, status.exit_code) == (container, 3)


def test_every_event_names_the_pod_by_uid_and_the_time_in_nanoseconds(kubelet, pod, cri):
    mine = pod()
    began = time.time_ns()
    with Follower(cri) as follower:
        kubelet.sync(mine)
        kubelet.delete(mine)
        events = follower.take(8)
    assert {one.pod_sandbox_status.metadata.uid for one in events} == {mine.uid}
    assert all(began <= one.created_at <= time.time_ns() for one in events)


def test_the_removal_of_a_sandbox_is_an_event_with_its_own_id(kubelet, pod, cri):
    """It evicts the pod from kubelet's cache."""
    mine = pod()
    kubelet.sync(mine)
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    with Follower(cri) as follower:
        kubelet.delete(mine)
        last = follower.take(4)[-1]
    assert (last.container_id, last.container_event_type) == (sandbox, kubelet.pb.CONTAINER_DELETED_EVENT)


def test_a_stream_of_events_stays_open_while_nothing_happens(kubelet, pod, cri):
    """Five ends of the stream and kubelet gives events up for the life of its process."""
    with Follower(cri) as follower:
        for _ in range(3):
            kubelet.relist()
            kubelet.status()
        assert follower.empty()  # an error would be in the queue
        kubelet.sync(pod())
        assert len(follower.take(4)) == 4


def test_the_status_of_a_pod_carries_its_containers_and_the_time_it_was_true(kubelet, standing):
    mine = standing
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    answer = kubelet.call("PodSandboxStatus", pod_sandbox_id=sandbox)
    assert [one.id for one in answer.containers_statuses] == [kubelet.newest(mine).id]
    assert answer.timestamp >= answer.containers_statuses[0].started_at > 0


def test_the_statuses_of_a_pod_s_containers_come_newest_first(kubelet, pod, cri):
    """With events kubelet takes the first of a name for its latest attempt, and would ask for that again."""
    mine = pod("sh", "-c", "exit 3")
    with Follower(cri) as follower:
        for _ in range(3):
            kubelet.sync(mine)
            cri.wait_exited(kubelet.newest(mine).id)
        last = follower.take(2 + 3 * 3 - 1)[-1]
    sandbox = kubelet.pod_status(mine.uid)[0][0].id
    answer = kubelet.call("PodSandboxStatus", pod_sandbox_id=sandbox)
    for message in (answer, last):
        assert [one.metadata.attempt for one in message.containers_statuses] == [2, 1, 0]
