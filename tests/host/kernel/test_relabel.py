"""The walk that labels a tree, with the attribute that SELinux reads."""

from __future__ import annotations

import os

import pytest

from noded.host import lsm, mounts
from noded.host.relabel import ATTRIBUTE, relabel_tree

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.root
@pytest.mark.skipif(lsm.selinux_enabled(), reason="the policy would judge the label")
def test_links_are_labelled_themselves_and_mounts_are_not_entered(tmp_path):
    """The kernel's real attribute, which takes any value where no SELinux is loaded."""
    top, outside = tmp_path / "volume", tmp_path / "outside"
    outside.write_text("x")
    (top / "mounted").mkdir(parents=True)
    (top / "link").symlink_to(outside)
    mounts.mount("tmpfs", top / "mounted", "tmpfs")
    try:
        (top / "mounted" / "inside").write_text("x")
        relabel_tree(top, LABEL, lambda: None)
        assert os.getxattr(top / "link", ATTRIBUTE, follow_symlinks=False) == LABEL.encode()
        for untouched in (outside, top / "mounted" / "inside"):
            with pytest.raises(OSError, match="No data"):
                os.getxattr(untouched, ATTRIBUTE)
    finally:
        mounts.unmount(top / "mounted")
