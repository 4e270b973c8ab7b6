"""Victims of memory in the kernel's log, by the cgroup of a container."""

from __future__ import annotations

import pytest

from noded.host.oom import names_victim

ID = "3f" * 32
SCOPE = f"/kubepods.slice/kubepods-burstable.slice/noded-{ID}.scope"


def log(path: str, limit: str = "/kubepods.slice") -> bytes:
    return (
        "<4>[  630.5] sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n"
        f"<6>[  630.5] oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
        f"oom_memcg={limit},task_memcg={path},task=sh,pid=2787,uid=0\n"
        "<3>[  630.5] Memory cgroup out of memory: Killed process 2787 (sh) total-vm:51420kB\n"
    ).encode()


@pytest.mark.parametrize("path", [SCOPE, f"{SCOPE}/container", f"/lxc/node{SCOPE}"])
def test_a_victim_is_found_by_the_end_of_its_path_or_below_it(path):
    assert names_victim(log(path), SCOPE)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        log("/kubepods.slice"),
        log(f"{SCOPE}x"),
        log(SCOPE.replace("3f", "4f")),
        log("/other", limit=SCOPE),  # the limit of this one, the process of another
        f"<6>[ 1.0] task=sh in {SCOPE},\n".encode(),
    ],
)
def test_other_lines_are_no_victims(text):
    assert not names_victim(text, SCOPE)
