"""The disk quota of a container, from annotations of its pod."""

from __future__ import annotations

import pytest

from noded.engine.disk_quota import disk_quota
from noded.errors import InvalidArgument

KEY = "noded.io/disk-quota"


def test_the_most_special_setting_counts() -> None:
    annotations = {KEY: "1Gi", f"{KEY}.web": "20M"}
    assert disk_quota(annotations, "web", 0, ()) == (20_000_000, ())
    assert disk_quota(annotations, "db", 0, ()) == (1 << 30, ())
    assert disk_quota({}, "web", 5, ()) == (5, ())
    assert disk_quota({KEY: "0"}, "web", 0, ()) == (0, ())


@pytest.mark.parametrize("key", [KEY, f"{KEY}.web"])
@pytest.mark.parametrize("value", ["0", "2Gi", str(2**63 - 1)])
def test_the_operators_limit_is_lifted_only_with_leave(key: str, value: str) -> None:
    quota, (warning,) = disk_quota({key: value}, "web", 1 << 30, ("other.*", "umask.noded.io"))
    assert quota == 1 << 30
    assert key in warning
    assert "allowed_annotations" in warning
    for pattern in (KEY, f"{KEY}*", "noded.io/*"):
        assert disk_quota({key: value}, "web", 1 << 30, (pattern,)) == (
            0 if value == "0" else 2 << 30 if value == "2Gi" else 2**63 - 1,
            (),
        )


def test_a_pod_may_always_ask_for_less() -> None:
    assert disk_quota({KEY: "1Mi"}, "web", 1 << 30, ()) == (1 << 20, ())
    assert disk_quota({KEY: "1Gi"}, "web", 1 << 30, ()) == (1 << 30, ())


@pytest.mark.parametrize("value", ["", "much", "-1Gi", "8Ei", str(2**63), "1e300"])
def test_a_value_that_is_no_size_is_refused_by_the_name_of_its_annotation(value: str) -> None:
    with pytest.raises(InvalidArgument, match=r"annotation noded\.io/disk-quota\.web"):
        disk_quota({f"{KEY}.web": value}, "web", 0, (KEY,))
