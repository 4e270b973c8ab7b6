"""The profiles that an administrator gives a handler, for RuntimeDefault and for privileged containers."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.root

TRY = "chmod 600 /etc/passwd; echo chmod:$?; mkdir /d; echo mkdir:$?"


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_each_kind_of_container_has_the_profile_of_its_handler(daemon, cri, busybox, runtime):
    config = daemon.pod_config(cri)
    config.linux.security_context.privileged = True
    pod = cri.run_pod(config, f"own-{runtime}")
    for name, privileged, seccomp, wanted in (
        ("default", False, "RuntimeDefault", {"chmod:0", "mkdir:1"}),
        ("unconfined", False, "Unconfined", {"chmod:0", "mkdir:0"}),
        ("privileged", True, "Unconfined", {"chmod:1", "mkdir:0"}),
        ("insisting", True, "RuntimeDefault", {"chmod:1", "mkdir:0"}),
    ):
        container = cri.container_config(name, busybox, ["/bin/sh", "-c", f"({TRY}) 2>/dev/null"])
        security = container.linux.security_context
        security.privileged = privileged
        security.seccomp.profile_type = cri.pb.SecurityProfile.ProfileType.Value(seccomp)
        cri.wait_exited(cri.run_container(pod, container, config))
        log = (daemon.pod_logs / f"{config.metadata.name}-0" / f"{name}.log").read_text()
        assert {line.split()[-1] for line in log.splitlines()} == wanted, name
