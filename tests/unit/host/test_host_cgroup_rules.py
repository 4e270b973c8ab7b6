"""Names, hierarchies and accounting files of cgroups: pure rules."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import cgroup_hierarchies, cgroup_names, cgroup_stats, systemd_units
from noded.host.mountinfo import parse_mountinfo
from noded.model.host import CgroupDriver, CgroupMode

CGROUPFS, SYSTEMD = CgroupDriver.CGROUPFS, CgroupDriver.SYSTEMD

V1 = "".join(
    f"{n} 1 0:{n} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{options}\n"
    for n, (name, options) in enumerate(
        [("cpu,cpuacct", "cpu,cpuacct"), ("memory", "memory"), ("systemd", "xattr,name=systemd")], start=30
    )
)
UNIFIED = "50 1 0:50 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
V2 = "30 1 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("parent", "path"),
    [
        ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1/noded-ID"),
        ("kubepods//pod1/", "/kubepods/pod1/noded-ID"),
        ("", "/noded/noded-ID"),
    ],
)
def test_a_cgroupfs_parent_becomes_a_path(parent: str, path: str) -> None:
    assert cgroup_names.oci_path(CGROUPFS, parent, "ID") == path
    assert cgroup_names.place(path) == path


@pytest.mark.parametrize(
    ("parent", "path", "place"),
    [
        (
            "kubepods-pod1.slice",
            "kubepods-pod1.slice:noded:ID",
            "/kubepods.slice/kubepods-pod1.slice/noded-ID.scope",
        ),
        ("/a.slice/a-b.slice", "a-b.slice:noded:ID", "/a.slice/a-b.slice/noded-ID.scope"),
        ("", "system.slice:noded:ID", "/system.slice/noded-ID.scope"),
        ("-.slice", "-.slice:noded:ID", "/noded-ID.scope"),
    ],
)
def test_a_systemd_parent_becomes_a_scope_in_its_slice(parent: str, path: str, place: str) -> None:
    assert cgroup_names.oci_path(SYSTEMD, parent, "ID") == path
    assert cgroup_names.place(path) == place


@pytest.mark.parametrize(
    ("driver", "parent"),
    [
        (CGROUPFS, "kubepods-pod1.slice"),
        (CGROUPFS, "/a/../b"),
        (CGROUPFS, "/"),
        (CGROUPFS, "a\0b"),
        (CGROUPFS, "/" + "x" * 300),
        (SYSTEMD, "/kubepods/pod1"),
        (SYSTEMD, "-a.slice"),
        (SYSTEMD, "a--b.slice"),
        (SYSTEMD, ".slice"),
        (SYSTEMD, "a b.slice"),
        (SYSTEMD, "/x.slice/a-b.slice"),
    ],
)
def test_a_parent_that_does_not_fit_the_driver_names_the_field(driver: CgroupDriver, parent: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^linux\.cgroup_parent: "):
        cgroup_names.oci_path(driver, parent, "ID")


@pytest.mark.parametrize("path", ["/", "", "/a/../..", "relative/path", "//"])
def test_a_place_is_never_the_root_nor_relative(path: str) -> None:
    with pytest.raises(InvalidArgument):
        cgroup_names.place(path)


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.sampled_from([CGROUPFS, SYSTEMD]))
def test_any_accepted_parent_stays_inside_the_hierarchy(parent: str, driver: CgroupDriver) -> None:
    try:
        place = cgroup_names.place(cgroup_names.oci_path(driver, parent, "id0"))
    except InvalidArgument:
        return
    assert place.startswith("/")
    assert ".." not in place.split("/")
    assert posixpath.normpath(place) == place
    assert "id0" in posixpath.basename(place)


def test_v1_hybrid_and_v2_are_told_apart_by_where_controllers_are() -> None:
    def mode(text: str) -> CgroupMode:
        return cgroup_hierarchies.mode_of(cgroup_hierarchies.hierarchies_in(parse_mountinfo(text)))

    assert mode(V1) is CgroupMode.V1
    assert mode(V1 + UNIFIED) is CgroupMode.HYBRID
    assert mode(V2) is CgroupMode.V2


def test_a_named_hierarchy_beside_v2_is_still_v2() -> None:
    named = "31 1 0:31 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
    hierarchies = cgroup_hierarchies.hierarchies_in(parse_mountinfo(V2 + named))
    assert cgroup_hierarchies.mode_of(hierarchies) is CgroupMode.V2


def test_without_any_cgroup_mount_the_error_says_so() -> None:
    with pytest.raises(FailedPrecondition, match="no cgroup file system"):
        cgroup_hierarchies.mode_of(())


def test_controllers_mounted_together_are_one_hierarchy_and_containers_mounts_do_not_count() -> None:
    stranger = "60 1 0:31 / /var/lib/x/rootfs/sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
    found = cgroup_hierarchies.hierarchies_in(parse_mountinfo(V1 + stranger))
    assert [sorted(h.controllers) for h in found] == [["cpu", "cpuacct"], ["memory"], ["name=systemd"]]


def test_own_places_are_keyed_by_controller() -> None:
    text = "9:name=systemd:/x:y\n4:memory:/m\n3:cpu,cpuacct:/\n0::/user.slice\n"
    assert cgroup_hierarchies.parse_own(text) == {
        "name=systemd": "/x:y", "memory": "/m", "cpu": "/", "cpuacct": "/", "": "/user.slice",
    }  # fmt: skip


def test_both_versions_count_oom_kills() -> None:
    assert cgroup_stats.oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n") == 3
    assert cgroup_stats.oom_kills("low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n") == 1
    assert cgroup_stats.oom_kills("oom_kill_disable 0\nunder_oom 0\n") == 0


def test_the_working_set_is_usage_less_inactive_cache_and_never_negative() -> None:
    v1 = "cache 5\ninactive_file 1\ntotal_inactive_file 40\n"
    assert cgroup_stats.memory_working_set_bytes(100, v1) == 60
    assert cgroup_stats.memory_working_set_bytes(100, "anon 3\ninactive_file 30\n") == 70
    assert cgroup_stats.memory_working_set_bytes(10, v1) == 0


def test_unlimited_has_three_spellings() -> None:
    assert [cgroup_stats.parse_limit(t) for t in ("max\n", "-1", "9223372036854771712\n", "1024\n")] == [
        None, None, None, 1024,
    ]  # fmt: skip


def test_cpu_time_is_in_nanoseconds() -> None:
    assert cgroup_stats.cpu_usage_ns_v1("123456\n") == 123456
    assert cgroup_stats.cpu_usage_ns_v2("usage_usec 12\nuser_usec 5\n") == 12000


@given(st.text())
def test_odd_accounting_text_never_raises(text: str) -> None:
    assert all(value >= 0 for value in cgroup_stats.parse_flat_keyed(text).values())


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,20}", fullmatch=True), st.integers(0, 2**63)))
def test_flat_keyed_files_are_read_exactly(values: dict[str, int]) -> None:
    text = "".join(f"{key} {value}\n" for key, value in values.items())
    assert cgroup_stats.parse_flat_keyed(text) == values


def test_a_scope_is_started_with_its_slice_and_pids() -> None:
    words = systemd_units.start_scope_arguments("noded-x.scope", "a-b.slice", [5, 6], "noded x")
    call = words.index("call")
    assert words[call + 4 : call + 6] == ["StartTransientUnit", "ssa(sv)a(sa(sv))"]
    assert words[call + 6 : call + 9] == ["noded-x.scope", "fail", "6"]
    assert words[words.index("PIDs") : words.index("PIDs") + 5] == ["PIDs", "au", "2", "5", "6"]
    assert words[words.index("Slice") : words.index("Slice") + 3] == ["Slice", "s", "a-b.slice"]
    assert words[-1] == "0"


def test_a_scope_needs_a_scope_name_a_slice_and_a_process() -> None:
    for scope, unit_slice, pids in [("x", "a.slice", [1]), ("x.scope", "a", [1]), ("x.scope", "a.slice", [])]:
        with pytest.raises(InvalidArgument):
            systemd_units.start_scope_arguments(scope, unit_slice, pids, "")
