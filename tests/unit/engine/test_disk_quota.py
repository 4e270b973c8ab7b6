"""The disk quota of a container, from annotations of its pod."""

from __future__ import annotations

import pytest

from noded.engine.disk_quota import disk_quota
from noded.errors import InvalidArgument


def test_the_most_special_setting_counts() -> None:
    annotations = {"noded.io/disk-quota": "1Gi", "noded.io/disk-quota.web": "20M"}
    assert disk_quota(annotations, "web", 5) == 20_000_000
    assert disk_quota(annotations, "db", 5) == 1 << 30
    assert disk_quota({}, "web", 5) == 5
    assert disk_quota({"noded.io/disk-quota": "0"}, "web", 5) == 0


@pytest.mark.parametrize("value", ["", "much", "-1Gi"])
def test_a_value_that_is_no_size_is_refused_by_the_name_of_its_annotation(value: str) -> None:
    with pytest.raises(InvalidArgument, match=r"annotation noded\.io/disk-quota\.web"):
        disk_quota({"noded.io/disk-quota.web": value}, "web", 0)
