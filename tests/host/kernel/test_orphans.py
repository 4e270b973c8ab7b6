"""Zombies without an owner go at the second look, not before."""

from __future__ import annotations

import os
import subprocess

from noded.host.orphans import reap_again_seen
from noded.host.processes import is_zombie


def test_a_zombie_is_reaped_at_the_second_look():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_zombie(child.pid)
    suspects = reap_again_seen(set())
    assert child.pid in suspects
    assert is_zombie(child.pid)
    assert child.pid not in reap_again_seen(suspects)
    assert not is_zombie(child.pid)
    assert child.wait() == 0  # subprocess notices that it was reaped elsewhere
