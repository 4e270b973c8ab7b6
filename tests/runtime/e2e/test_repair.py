"""What a start does about a store that a crash of the node damaged."""

from __future__ import annotations

import shutil

import pytest

from tests.support import images

pytestmark = pytest.mark.root


def verify(cri):
    """Waits for a verification that runs already, and repairs what none has found yet."""
    (image,) = cri.admin.VerifyImages(cri.admin_pb.VerifyImagesRequest(deep=True), timeout=60).images
    return image


def test_an_orderly_stop_is_told_from_a_crash(daemon, cri, busybox):
    mark = daemon.root / "running"
    assert mark.read_text().strip()
    assert daemon.stop() == 0
    assert mark.read_text() == ""
    daemon.start()
    daemon.kill()
    assert mark.read_text().strip()


def test_after_a_crash_a_damaged_layer_is_found_and_repaired(daemon, cri, busybox):
    daemon.kill()
    (daemon.root / "running").write_text("another boot\n")
    (program,) = (daemon.root / "layers").glob("*/fs/bin/busybox")
    program.unlink()
    daemon.start()
    with daemon.client() as again:
        again.stop("0" * 64)
        verify(again)
        assert program.read_bytes() == images.busybox().read_bytes()
        assert [image.id for image in again.images()] == [images.busybox_image().id]


def test_a_layer_that_is_gone_is_extracted_again_after_the_start(daemon, cri, busybox):
    assert daemon.stop() == 0
    for path in (daemon.root / "layers").iterdir():
        if path.name != ".staging":
            shutil.rmtree(path)
    daemon.start()
    with daemon.client() as again:
        again.stop("0" * 64)
        assert verify(again).usable
        assert [image.id for image in again.images()] == [images.busybox_image().id]
