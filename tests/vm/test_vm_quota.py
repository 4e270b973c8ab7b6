"""Disk quotas of containers on the file systems of most nodes: project quotas of xfs and ext4."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.node import IMAGE, Node

MAKE = {"xfs": "mkfs.xfs -q -f", "ext4": "mkfs.ext4 -q -F -O quota,project -E quotatype=prjquota"}


@pytest.fixture(params=MAKE)
def limited(node: Node, request: pytest.FixtureRequest) -> Iterator[Node]:
    """noded with its state on a file system of its own that counts projects."""
    node.remove_all_pods()
    node.guest.shell(
        "systemctl stop noded; truncate -s 400M /var/tmp/state.img; "
        f"{MAKE[request.param]} /var/tmp/state.img; "
        "mount -o loop,prjquota /var/tmp/state.img /var/lib/noded; systemctl start noded"
    )
    node.load_image()
    yield node
    node.remove_all_pods()
    node.guest.shell(
        "systemctl stop noded; umount /var/lib/noded; rm /var/tmp/state.img; systemctl start noded"
    )


def _run(node: Node, quota: str) -> str:
    pod_id, config = node.run_pod(annotations={"noded.io/disk-quota": quota})
    container = node.cri.container_config("main", IMAGE, ["sleep", "1000"])
    return node.cri.run_container(pod_id, container, config)


def test_a_container_writes_no_more_than_its_quota(limited: Node) -> None:
    node = limited
    container_id, neighbour_id = _run(node, "8Mi"), _run(node, "40Mi")
    write = ("dd", "if=/dev/zero", "of=/big", "bs=1M", "conv=fsync")
    node.output(container_id, *write, "count=4")
    beyond = node.cri.exec(container_id, *write, "count=20")
    assert beyond.exit_code != 0
    said = beyond.stderr.decode().lower()
    assert "quota exceeded" in said or "no space left" in said, said
    kept = int(node.output(container_id, "stat", "-c", "%s", "/big"))
    assert 4 << 20 <= kept <= 8 << 20
    node.output(neighbour_id, *write, "count=20")  # the file system itself has room
    node.output(container_id, "rm", "/big")
    node.output(container_id, *write, "count=4")
    node.remove_all_pods()
    # What a container had is free again, and no limit of it is left to anybody.
    _run(node, "8Mi")
