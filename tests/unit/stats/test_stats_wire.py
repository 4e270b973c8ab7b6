"""Hand-written protobuf says what a generic decoder reads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from stats_fixtures import V2, reader

from noded.edge.cri import metric_families, metric_family, metric_wire, stats_wire
from noded.engine.samples import ContainerDetail, ContainerSample, Filesystem, PodDetail, PodSample
from noded.host import cgroup_detail, cgroup_stats
from noded.host.cgroup_stats import CgroupUsage
from noded.host.network_stats import InterfaceStats
from noded.images.usage import Measurement
from noded.model.container import ContainerConfig
from noded.model.pod import PodConfig, SandboxKey
from noded.model.states import ContainerState, SandboxState
from noded.model.views import ContainerView, SandboxView
from noded.proto.runtime import v1
from noded.wire.protobuf import record

NUMBERS = st.integers(0, 2**64 - 1)
POD = SandboxView("ab" * 32, PodConfig(key=SandboxKey("ns", "pod", "uid", 0)), "runc", SandboxState.READY, 1)
CONTAINER = ContainerView(
    "cd" * 32,
    POD.id,
    ContainerConfig("main", 0, "sha256:1", user_specified_image="busybox"),
    ContainerState.RUNNING,
    1,
    "sha256:1",
    started_at_ns=7_000_000_000,
)
ATTRIBUTES = record(1, bytes(v1.ContainerAttributes(id=CONTAINER.id)))
DEVICES = (
    InterfaceStats("lo", 1, 2, 3, 4, 5, 6, 7, 8),
    InterfaceStats("eth0", 10, 20, 30, 40, 50, 60, 70, 80),
    InterfaceStats("net1", 11, 21, 31, 41, 51, 61, 71, 81),
)


@given(NUMBERS)
def test_numbers_are_read_as_written(number):
    assert v1.UInt64Value.parse(stats_wire.number(1, number)).value == number
    usage = v1.FilesystemUsage.parse(stats_wire.value(3, number))
    assert usage.used_bytes is not None
    assert usage.used_bytes.value == number


def test_absent_is_not_zero():
    assert v1.FilesystemUsage.parse(stats_wire.value(3, None)).used_bytes is None
    assert v1.FilesystemUsage.parse(stats_wire.value(3, 0)).used_bytes == v1.UInt64Value()


def test_a_container_is_read_as_sampled():
    usage = cgroup_stats.usage_v2(reader(V2), 123, 2)
    sample = ContainerSample(CONTAINER, usage, 250_000_000, Measurement(100, 3, 77))
    stats = v1.ContainerStats.parse(stats_wire.container(sample, ATTRIBUTES, b"/var/lib/noded"))
    assert stats.attributes.id == CONTAINER.id
    assert stats.cpu.timestamp == stats.memory.timestamp == stats.swap.timestamp == stats.io.timestamp == 123
    assert stats.cpu.usage_core_nano_seconds.value == usage.cpu_ns
    assert stats.cpu.usage_nano_cores.value == 250_000_000
    assert stats.memory.working_set_bytes.value == usage.working_set_bytes
    assert stats.memory.available_bytes.value == 67108864 - usage.working_set_bytes
    assert stats.memory.usage_bytes.value == usage.memory_bytes
    assert stats.memory.rss_bytes.value == usage.rss_bytes
    assert (stats.memory.page_faults.value, stats.memory.major_page_faults.value) == (1234, 56)
    assert (stats.swap.swap_usage_bytes.value, stats.swap.swap_available_bytes.value) == (
        4194304,
        67108864 - 4194304,
    )
    for psi in (stats.cpu.psi, stats.memory.psi, stats.io.psi):
        assert (psi.some.total, psi.some.avg_10, psi.some.avg_60) == (3_000_000_000, 1.5, 0.25)
        assert (psi.full.total, psi.full.avg_10) == (1_000_000_000, 0.5)
    layer = stats.writable_layer
    assert (layer.timestamp, layer.used_bytes.value, layer.inodes_used.value) == (77, 100, 3)
    assert layer.fs_id.mountpoint == "/var/lib/noded"


def test_an_ended_container_has_attributes_and_disk_only():
    sample = ContainerSample(CONTAINER, None, None, Measurement(100, 3, 77))
    stats = v1.ContainerStats.parse(stats_wire.container(sample, ATTRIBUTES, b"/"))
    assert (stats.cpu, stats.memory, stats.swap, stats.io) == (None, None, None, None)
    assert stats.writable_layer.used_bytes.value == 100


def test_a_pod_is_read_as_sampled():
    usage = CgroupUsage(5, 6, cpu_ns=1000)
    sample = PodSample(POD, 9, usage, None, DEVICES, "eth0", 4)
    inner = stats_wire.container(ContainerSample(CONTAINER, usage), ATTRIBUTES, b"/")
    stats = v1.PodSandboxStats.parse(stats_wire.pod(sample, b"", [inner]))
    assert stats.linux.cpu.usage_core_nano_seconds.value == 1000
    assert stats.linux.cpu.usage_nano_cores is None
    assert stats.linux.memory.usage_bytes is None
    network = stats.linux.network
    assert (network.default_interface.name, network.default_interface.rx_bytes.value) == ("eth0", 10)
    assert (network.default_interface.rx_errors.value, network.default_interface.tx_errors.value) == (30, 70)
    assert [(one.name, one.tx_bytes.value) for one in network.interfaces] == [("net1", 51)]
    assert stats.linux.process.process_count.value == 4
    assert [one.attributes.id for one in stats.linux.containers] == [CONTAINER.id]


def details():
    usage = cgroup_stats.usage_v2(reader(V2), 123, 2)
    detail = cgroup_detail.detail_v2(reader(V2), usage, (4, 5), ("2MB",))
    inside = ContainerDetail(CONTAINER, "/pod/c", detail, Measurement(100, 3, 77), 9, 2, 1024)
    pod = PodDetail(POD, "/pod", 5_000_000_000, detail, DEVICES, (inside,))
    moment = metric_family.Moment(pod.at_ns, Filesystem("/dev/vda", 1000, 50, 20))
    return v1.PodSandboxMetrics.parse(metric_wire.pod(pod, moment))


def test_every_family_is_described_once_with_help_and_labels():
    described = metric_families.descriptors()
    assert len({one.name for one in described}) == len(described) == 56
    for one in described:
        assert one.help.endswith(".")
        assert one.label_keys[:6] == list(metric_families.BASE_LABELS)


def test_every_family_has_values_and_each_as_many_labels_as_keys():
    keys = {one.name: one.label_keys for one in metric_families.descriptors()}
    found = details()
    assert found.pod_sandbox_id == POD.id
    samples = [*found.metrics, *(metric for one in found.container_metrics for metric in one.metrics)]
    assert all(len(sample.label_values) == len(keys[sample.name]) for sample in samples)
    assert set(keys) - {sample.name for sample in samples} == {"container_hugetlb_max_usage_bytes"}
    assert all(sample.timestamp == 5_000_000_000 for sample in samples)
    kinds = {
        sample.name: sample.metric_type for sample in samples if sample.name != "container_fs_inodes_total"
    }
    for name, kind in kinds.items():
        assert (kind is v1.MetricType.COUNTER) == (
            name.endswith("_total") or name == "container_memory_failcnt"
        )


def test_metric_values_are_what_the_kernel_said_in_the_units_of_their_names():
    found = details()
    values = {
        (sample.name, *sample.label_values[6:]): sample.value.value
        for sample in found.container_metrics[0].metrics
    }
    assert values["container_cpu_usage_seconds_total",] == 5
    assert values["container_cpu_cfs_throttled_seconds_total",] == 2
    assert values["container_pressure_io_waiting_seconds_total",] == 3
    assert values["container_pressure_io_stalled_seconds_total",] == 1
    assert values["container_start_time_seconds",] == 7
    assert values["container_last_seen",] == 5
    assert values["container_fs_usage_bytes", "/dev/vda"] == 100
    assert values["container_fs_inodes_free", "/dev/vda"] == 20
    assert values["container_processes",] == 2
    assert values["container_threads_max",] == 1000
    assert values["container_memory_failures_total", "pgfault", "hierarchy"] == 1234
    assert values["container_ulimits_soft", "max_open_files"] == 1024
    assert values["container_oom_events_total",] == 2
    network = {
        (sample.name, sample.label_values[6]): sample.value.value
        for sample in found.metrics
        if "_network_" in sample.name
    }
    assert network["container_network_receive_packets_dropped_total", "eth0"] == 40
    assert network["container_network_transmit_packets_total", "net1"] == 61
    assert not any(device == "lo" for _, device in network)
