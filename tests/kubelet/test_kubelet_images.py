"""Images: presence, pulls and garbage collection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from tests.kubelet.conftest import HOST
from tests.support import images
from tests.support.registry import PASSWORD, USER

pytestmark = pytest.mark.root

USED, UNUSED = f"{HOST}/kubelet/busybox:1", f"{HOST}/kubelet/unused:1"


def test_an_absent_image_has_an_empty_status_and_no_error(kubelet):
    answer = kubelet.call("ImageStatus", image={"image": f"{HOST}/kubelet/never:1"})
    assert not answer.HasField("image")


def test_an_image_has_one_id_and_a_size_wherever_it_is_told(kubelet):
    image = kubelet.ensure_image(USED)
    (listed,) = (one for one in kubelet.call("ListImages").images if one.id == image)
    by_name = kubelet.call("ImageStatus", image={"image": USED}).image
    by_id = kubelet.call("ImageStatus", image={"image": image}).image
    assert listed == by_name == by_id
    assert listed.size > 0
    assert USED in listed.repo_tags
    assert image.startswith("sha256:")


def test_unused_images_are_collected_and_used_ones_kept(kubelet, pod):
    mine = pod()
    kubelet.sync(mine)
    unused = kubelet.ensure_image(UNUSED)
    pinned = [one.id for one in kubelet.call("ListImages").images if one.pinned]
    assert unused in kubelet.collect_images()
    left = {one.id for one in kubelet.call("ListImages").images}
    assert left == {kubelet.newest(mine).image_id, *pinned}


def test_the_image_of_a_dead_container_is_used_until_that_is_removed(kubelet, pod, cri):
    mine = pod("true", image=UNUSED, restart=False)
    kubelet.sync(mine)
    dead = cri.wait_exited(kubelet.newest(mine).id)
    assert dead.image_id not in kubelet.collect_images()
    kubelet.delete(mine)
    assert dead.image_id in kubelet.collect_images()


def test_a_pinned_image_says_so_and_is_left(kubelet):
    pinned = kubelet.ensure_image(f"{HOST}/kubelet/pinned:1")
    assert kubelet.call("ImageStatus", image={"image": pinned}).image.pinned
    assert pinned not in kubelet.collect_images()
    assert kubelet.call("ImageStatus", image={"image": pinned}).image.id == pinned


def test_pulls_of_one_image_at_once_give_one_image(kubelet):
    kubelet.collect_images()
    with ThreadPoolExecutor(5) as threads:
        ids = set(
            threads.map(
                lambda _: kubelet.call("PullImage", None, image={"image": UNUSED}).image_ref, range(5)
            )
        )
    assert len(ids) == 1


def test_a_pull_of_a_present_image_proves_the_given_credential(kubelet, private):
    """kubelet relies on the pull to show that the pod may use the image."""
    reference = private.push(images.busybox_image(labels={"of": "private"}), "kubelet/private", "1")

    def pull(password):
        auth = {"username": USER, "password": password}
        return kubelet.call("PullImage", None, image={"image": reference}, auth=auth).image_ref

    pulled = pull(PASSWORD)
    assert pull(PASSWORD) == pulled
    with pytest.raises(grpc.RpcError):
        pull("wrong")
    assert kubelet.call("ImageStatus", image={"image": pulled}).image.id == pulled


def test_the_file_system_of_images_has_a_path_that_exists_and_numbers(kubelet):
    answer = kubelet.call("ImageFsInfo")
    for usage in (answer.image_filesystems[0], answer.container_filesystems[0]):
        assert Path(usage.fs_id.mountpoint).is_dir()
        assert usage.timestamp > 0
        assert usage.HasField("used_bytes")
        assert usage.HasField("inodes_used")
