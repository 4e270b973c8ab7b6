"""Accounting files of both cgroup versions give the same values."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stats_fixtures import PRESSURE, V1, V2, reader

from noded.host import cgroup_detail, cgroup_stats
from noded.host.cgroup_hierarchies import Hierarchy
from noded.host.cgroup_samples import CgroupSampler
from noded.host.cgroup_stats import DeviceIo, Pressure, Stall
from noded.host.network_stats import parse_net_dev
from noded.model.host import CgroupMode

STALLED = Pressure(Stall(1.5, 0.25, 0.0, 3_000_000), Stall(0.5, 0.0, 0.0, 1_000_000))


def test_both_versions_give_the_same_usage():
    hybrid = V1 | {key: value for key, value in V2.items() if key[1].endswith(".pressure")}
    usages = (
        cgroup_stats.usage_v1(reader(hybrid), 1, 2),
        cgroup_stats.usage_v2(reader(V2), 1, 2),
    )
    for usage in usages:
        assert usage is not None
        assert usage.cpu_ns // 1000 == 5123456
        assert usage.memory_bytes == 52428800
        assert usage.working_set_bytes == 52428800 - 10485760
        assert usage.rss_bytes == 31457280
        assert usage.memory_limit_bytes == 67108864
        assert (usage.page_faults, usage.major_page_faults) == (1234, 56)
        assert (usage.swap_bytes, usage.swap_limit_bytes) == (4194304, 67108864)
        assert usage.cpu_pressure == usage.memory_pressure == usage.io_pressure == STALLED


def test_v1_without_a_hybrid_has_no_pressure():
    usage = cgroup_stats.usage_v1(reader(V1), 1, 2)
    assert usage is not None
    assert usage.cpu_pressure is None


@pytest.mark.parametrize("parse", [cgroup_stats.usage_v1, cgroup_stats.usage_v2])
def test_a_cgroup_that_is_gone_has_no_usage(parse):
    assert parse(reader({}), 1, 2) is None


@pytest.mark.parametrize("files", [V1, V2])
def test_any_one_missing_file_leaves_the_rest(files):
    parse, detail = (
        (cgroup_stats.usage_v1, cgroup_detail.detail_v1)
        if files is V1
        else (cgroup_stats.usage_v2, cgroup_detail.detail_v2)
    )
    for missing in files:
        read = reader({key: value for key, value in files.items() if key != missing})
        usage = parse(read, 1, 2)
        if usage is not None:
            detail(read, usage, (), ("2MB",))


@given(st.binary(max_size=200))
@example(b"\n")
def test_an_odd_pressure_file_says_nothing(data):
    cgroup_stats.parse_pressure(data)


@given(st.dictionaries(st.sampled_from([*V1, *V2]), st.binary(max_size=60)))
def test_odd_content_never_raises(files):
    for parse, detail in (
        (cgroup_stats.usage_v1, cgroup_detail.detail_v1),
        (cgroup_stats.usage_v2, cgroup_detail.detail_v2),
    ):
        usage = parse(reader(files), 1, 2)
        if usage is not None:
            detail(reader(files), usage, (), ("2MB",))


def test_both_versions_give_the_same_detail():
    one = cgroup_detail.detail_v1(reader(V1), cgroup_stats.usage_v1(reader(V1), 1, 2), (7, 8), ("2MB", "1GB"))
    two = cgroup_detail.detail_v2(reader(V2), cgroup_stats.usage_v2(reader(V2), 1, 2), (7, 8), ("2MB", "1GB"))
    for detail in (one, two):
        assert detail.user_ns == 4_000_000_000
        assert detail.system_ns // 1000 == 1123456
        assert (detail.periods, detail.throttled_periods, detail.throttled_ns) == (100, 7, 2_500_000_000)
        assert (detail.cpu_quota_us, detail.cpu_period_us) == (20000, 100000)
        assert (detail.cache_bytes, detail.mapped_file_bytes) == (20971520, 4096)
        assert detail.kernel_bytes == 1048576
        assert detail.max_usage_bytes == 60000000
        assert (detail.limit_hits, detail.oom_kills) == (3, 2)
        assert detail.tasks == 12
        assert detail.devices[0] == DeviceIo(252, 0, 4096, 8192, 1, 2)
        assert [(page.page_size, page.usage_bytes) for page in detail.huge_pages] == [("2MB", 2097152)]
        assert detail.pids == (7, 8)
    assert (one.cpu_shares, two.cpu_shares) == (1024, 998)  # weights are coarser than shares
    assert (one.faults, two.faults) == (11, 1234)
    assert (one.tasks_limit, two.tasks_limit) == (None, 1000)
    assert one.memory_reservation_bytes is None
    assert (one.memory_swap_limit_bytes, two.memory_swap_limit_bytes) == (134217728, 67108864)
    assert (one.huge_pages[0].max_usage_bytes, two.huge_pages[0].max_usage_bytes) == (4194304, None)


def test_kernel_memory_of_an_old_v2_is_the_sum_of_its_parts():
    files = V2 | {("", "memory.stat"): b"anon 1\nkernel_stack 100\nslab 20\npagetables 3\n"}
    usage = cgroup_stats.usage_v2(reader(files), 1, 2)
    assert cgroup_detail.detail_v2(reader(files), usage, (), ()).kernel_bytes == 123


def test_an_unlimited_cpu_has_no_quota():
    for files, detail, parse in (
        (V1 | {("cpu", "cpu.cfs_quota_us"): b"-1\n"}, cgroup_detail.detail_v1, cgroup_stats.usage_v1),
        (V2 | {("", "cpu.max"): b"max 100000\n"}, cgroup_detail.detail_v2, cgroup_stats.usage_v2),
    ):
        found = detail(reader(files), parse(reader(files), 1, 2), (), ())
        assert (found.cpu_quota_us, found.cpu_period_us) == (None, 100000)


def test_pressure_without_a_full_line_has_none():
    pressure = cgroup_stats.parse_pressure(PRESSURE.splitlines()[0])
    assert pressure == Pressure(STALLED.some, None)


@pytest.mark.parametrize(
    "text", [b"", b"some avg10=x", b"some", b"full avg10=0.00 avg60=0.00 avg300=0.00 total=1", None]
)
def test_odd_pressure_is_none(text):
    assert cgroup_stats.parse_pressure(text) is None


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.integers(0, 2**63)))
def test_keyed_files_are_parsed_as_written(values):
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert cgroup_stats.parse_keyed(text.encode()) == {key.encode(): value for key, value in values.items()}


def test_a_keyed_file_with_an_odd_line_keeps_the_others():
    assert cgroup_stats.parse_keyed(b"a 1\nodd\nb x\nc 3\n") == {b"a": 1, b"c": 3}


@given(
    st.lists(
        st.tuples(st.integers(0, 999), st.integers(0, 255), *[st.integers(0, 2**62)] * 4),
        unique_by=lambda row: row[:2],
    )
)
def test_io_stat_is_parsed_as_written(rows):
    text = "".join(f"{a}:{b} rbytes={c} wbytes={d} rios={e} wios={f} dbytes=0\n" for a, b, c, d, e, f in rows)
    assert cgroup_stats.parse_io_stat(text.encode()) == tuple(DeviceIo(*row) for row in rows)


def test_the_sum_of_nothing_is_unknown_and_of_some_is_theirs():
    usage = cgroup_stats.usage_v2(reader(V2), 1, 2)
    assert cgroup_stats.total([], 5, 6).cpu_ns is None
    both = cgroup_stats.total([usage, usage], 5, 6)
    assert both.working_set_bytes == 2 * usage.working_set_bytes
    assert (both.memory_limit_bytes, both.cpu_pressure, both.at_ns) == (None, None, 5)


@pytest.mark.parametrize(("kib", "name"), [(64, "64KB"), (2048, "2MB"), (32768, "32MB"), (1048576, "1GB")])
def test_huge_page_sizes_are_named_as_in_file_names(kib, name):
    assert cgroup_detail.page_size_name(kib) == name


def test_a_v2_tree_is_read_with_all_processes_below(tmp_path):
    top = tmp_path / "kubepods" / "c1"
    (top / "init.scope").mkdir(parents=True)
    for (_, name), content in V2.items():
        (top / name).write_bytes(content)
    (top / "cgroup.procs").write_bytes(b"")
    (top / "init.scope" / "cgroup.procs").write_bytes(b"30\n4\n0\n")
    sampler = CgroupSampler(CgroupMode.V2, [Hierarchy(tmp_path, frozenset(), v2=True)])
    assert sampler.usage("/kubepods/c1").cpu_ns == 5123456000
    assert sampler.detail("/kubepods/c1").pids == (4, 30)
    assert sampler.usage("/kubepods/gone") is None
    assert sampler.detail("/kubepods/gone") is None
    assert sampler.pids("/kubepods/gone") == ()


@given(st.text(max_size=200))
def test_odd_network_counters_never_raise(text):
    try:
        parse_net_dev(text)
    except ValueError:
        assert any(not word.isdigit() for line in text.splitlines()[2:] for word in line.split())
