"""The limits of a pod as a whole, for runtimes that run all its containers in one process."""

from __future__ import annotations

from noded.model.pod import Resources
from noded.runtimes.oci_runtime import with_capabilities
from noded.spec.resources import pod_total

POD = Resources(cpu_period_us=100_000, cpu_quota_us=50_000, cpu_shares=512, memory_limit_bytes=100 << 20)
OVERHEAD = Resources(cpu_period_us=100_000, cpu_quota_us=25_000, cpu_shares=256, memory_limit_bytes=20 << 20)


def test_the_overhead_is_added_to_the_limits_of_the_containers():
    total = pod_total(POD, OVERHEAD)
    assert (total.cpu_quota_us, total.cpu_shares) == (75_000, 768)
    assert total.memory_limit_bytes == 120 << 20


def test_an_overhead_alone_limits_nothing():
    assert pod_total(None, OVERHEAD) is None
    assert pod_total(Resources(), OVERHEAD) == Resources()


def test_a_pod_without_overhead_has_what_its_containers_have():
    assert pod_total(POD, None) is POD


def test_quotas_of_different_periods_are_not_added():
    other = Resources(cpu_period_us=50_000, cpu_quota_us=25_000)
    assert pod_total(POD, other).cpu_quota_us == POD.cpu_quota_us


def test_capabilities_are_added_without_changing_the_spec():
    spec = {"process": {"capabilities": {"bounding": [], "effective": []}, "args": ["/init"]}, "linux": {}}
    changed = with_capabilities(spec, ("CAP_NET_BIND_SERVICE",))
    assert changed["process"]["capabilities"] == {
        kind: ["CAP_NET_BIND_SERVICE"] for kind in ("bounding", "effective", "permitted")
    }
    assert changed["process"]["args"] == ["/init"]
    assert spec["process"]["capabilities"]["bounding"] == []
    assert with_capabilities(spec, ()) is spec
