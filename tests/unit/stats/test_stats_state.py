"""What is remembered between samples: CPU rates and the size of writable layers."""

from __future__ import annotations

import threading

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from noded.engine.stats import parent_place
from noded.engine.stats_disk import LayerUsage
from noded.engine.stats_rate import CpuRate
from noded.model.host import CgroupDriver
from noded.model.paths import Layout

SECOND = 1_000_000_000


def test_the_first_sample_has_no_rate():
    assert CpuRate().update(5, 5) is None


def test_a_rate_spans_from_the_sample_before():
    rate = CpuRate()
    rate.update(0, 0)
    assert rate.update(10 * SECOND, 5 * SECOND) == SECOND // 2
    assert rate.update(20 * SECOND, 15 * SECOND) == SECOND


def test_samples_in_a_hurry_do_not_narrow_the_window():
    rate = CpuRate()
    rate.update(0, 0)
    rate.update(10 * SECOND, 10 * SECOND)
    assert rate.update(10 * SECOND + 1000, 10 * SECOND) == SECOND * 10 * SECOND // (10 * SECOND + 1000)
    assert rate.update(10 * SECOND + SECOND // 2, 10 * SECOND) < SECOND


def test_a_counter_that_went_back_begins_anew():
    rate = CpuRate()
    rate.update(0, 100)
    rate.update(2 * SECOND, 200)
    assert rate.update(4 * SECOND, 50) is None
    assert rate.update(6 * SECOND, 50 + SECOND) == SECOND // 2


@given(st.lists(st.tuples(st.integers(1, 100 * SECOND), st.integers(0, 8 * 100 * SECOND)), min_size=1))
def test_a_rate_lies_between_the_slowest_and_the_fastest_pace(steps):
    rate, at, cpu = CpuRate(), 0, 0
    rate.update(at, cpu)
    paces = []
    for seconds, used in steps:
        at, cpu = at + seconds, cpu + used
        paces.append(used * SECOND / seconds)
        found = rate.update(at, cpu)
        assert found is None or min(paces) - 1 <= found <= max(paces) + 1


def layers(tmp_path, measure, clock):
    async def main(body):
        async with trio.open_nursery() as nursery:
            await body(LayerUsage(Layout(tmp_path, tmp_path), nursery, measure, clock))
            nursery.cancel_scope.cancel()

    return main


def test_a_layer_is_measured_once_in_half_a_minute(tmp_path):
    asked, now = [], [0.0]

    def measure(path):
        asked.append(path.name)
        return len(asked) * 1000, 5

    async def body(usage):
        assert usage.known("a") is None
        await usage.refresh(["a"])
        assert usage.known("a").used_bytes == 1000
        now[0] = 29.0
        await usage.refresh(["a"])
        assert asked == ["a"]
        now[0] = 31.0
        await usage.refresh(["a", "b"])  # waits for b only, which is walked first
        assert usage.known("b").used_bytes == 2000
        await trio.testing.wait_all_tasks_blocked()

    trio.run(layers(tmp_path, measure, lambda: now[0]), body)
    assert asked[:2] == ["a", "b"]


def test_a_dear_walk_is_repeated_later(tmp_path):
    asked, now = [], [0.0]

    def measure(path):
        asked.append(path.name)
        now[0] += 10.0
        return 0, 0

    async def body(usage):
        await usage.refresh(["a"])
        now[0] = 10.0 + 499.0
        await usage.refresh(["a"])
        assert len(asked) == 1

    trio.run(layers(tmp_path, measure, lambda: now[0]), body)


def test_a_list_does_not_wait_long_for_a_huge_layer(tmp_path):
    release = threading.Event()

    def measure(path):
        release.wait(10)
        return 1, 1

    async def body(usage):
        with trio.fail_after(5):
            await usage.refresh(["huge"])
        assert usage.known("huge") is None
        release.set()

    trio.run(layers(tmp_path, measure, lambda: 0.0), body)


def test_a_layer_that_cannot_be_read_is_not_asked_again_at_once(tmp_path):
    asked = []

    def measure(path):
        asked.append(path)
        raise PermissionError("no")

    async def body(usage):
        await usage.refresh(["a"])
        await usage.refresh(["a"])
        assert len(asked) == 1

    trio.run(layers(tmp_path, measure, lambda: 0.0), body)


def test_gone_containers_are_forgotten_when_there_are_many(tmp_path):
    async def body(usage):
        await usage.refresh([str(number) for number in range(100)])
        usage.keep(["5"])
        assert usage.known("5") is not None
        assert usage.known("6") is None

    trio.run(layers(tmp_path, lambda path: (1, 1), lambda: 0.0), body)


@pytest.mark.parametrize(
    ("driver", "parent", "place"),
    [
        (CgroupDriver.CGROUPFS, "/kubepods/pod1", "/kubepods/pod1"),
        (CgroupDriver.CGROUPFS, "", ""),
        (CgroupDriver.CGROUPFS, "a.slice", ""),
        (CgroupDriver.SYSTEMD, "a-b.slice", "/a.slice/a-b.slice"),
        (CgroupDriver.SYSTEMD, "/kubepods/pod1", ""),
        (CgroupDriver.SYSTEMD, "-.slice", ""),
    ],
)
def test_a_pod_of_another_cgroup_driver_has_no_place_but_fails_nothing(driver, parent, place):
    assert parent_place(driver, parent) == place
