"""Container events as kubelet's evented PLEG follows them."""

from __future__ import annotations

import time

import grpc
import pytest

from tests.support.events import Follower

pytestmark = pytest.mark.root

CREATED, STARTED, STOPPED, DELETED = range(4)


def test_the_life_of_a_pod_is_told_in_order_with_its_statuses(daemon, cri, busybox, handler):
    config = daemon.pod_config(cri, "eventful")
    with Follower(cri) as follower:
        pod = cri.run_pod(config, handler)
        container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
        cri.stop(container)
        cri.remove(container)
        cri.remove_pod(pod)
        events = follower.take(8)
        assert follower.empty()
    assert [(event.container_id, event.container_event_type) for event in events] == [
        (pod, CREATED), (pod, STARTED), (container, CREATED), (container, STARTED), (container, STOPPED),
        (container, DELETED), (pod, STOPPED), (pod, DELETED),
    ]  # fmt: skip
    times = [event.created_at for event in events]
    assert times == sorted(set(times))
    assert abs(times[-1] - time.time_ns()) < 60e9
    assert {event.pod_sandbox_status.metadata.uid for event in events} == {config.metadata.uid}
    pb = cri.pb
    inside = [[one.state for one in event.containers_statuses] for event in events]
    assert inside == [
        [], [], [pb.CONTAINER_CREATED], [pb.CONTAINER_RUNNING], [pb.CONTAINER_EXITED], [], [], [],
    ]  # fmt: skip
    assert events[4].containers_statuses[0].exit_code == 137
    assert events[1].pod_sandbox_status.network.ip
    assert events[1].pod_sandbox_status.state == pb.SANDBOX_READY
    assert events[6].pod_sandbox_status.state == pb.SANDBOX_NOTREADY


def test_an_exit_right_after_the_start_is_told_after_it(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    with Follower(cri) as follower:
        for number in range(5):
            cri.run_container(pod, cri.container_config(f"c{number}", busybox, ["true"]), config)
        events = follower.take(15)
    for number in range(5):
        name = f"c{number}"
        kinds = [
            event.container_event_type
            for event in events
            if any(
                one.id == event.container_id and one.metadata.name == name
                for one in event.containers_statuses
            )
        ]
        assert kinds == [CREATED, STARTED, STOPPED]


def test_a_create_that_fails_tells_nothing(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    with Follower(cri) as follower:
        wanted = cri.container_config("bad", busybox, ["/does/not/exist"])
        with pytest.raises(grpc.RpcError):
            cri.run_container(pod, wanted, config)
        cri.run_container(pod, cri.container_config("good", busybox, ["sleep", "1000"]), config)
        names = [one.metadata.name for event in follower.take(2) for one in event.containers_statuses]
    assert names == ["good", "good"]


def test_an_event_stream_ends_with_the_daemon(daemon, cri):
    with Follower(cri) as follower:
        daemon.stop()
        assert follower.error().code() is grpc.StatusCode.UNAVAILABLE
    daemon.start()


def test_a_pod_status_has_its_containers_and_its_time(daemon, cri, busybox):
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config)
    container = cri.run_container(pod, cri.container_config("main", busybox, ["sleep", "1000"]), config)
    answer = cri.pod_status(pod, verbose=True)
    assert [one.id for one in answer.containers_statuses] == [container]
    assert answer.containers_statuses[0] == cri.status(container)
    assert abs(answer.timestamp - time.time_ns()) < 60e9
    assert answer.info["info"]
