"""Handlers that cannot tell of system calls refuse to, and never run the container without a word."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import grpc
import pytest

from tests.support.daemon import REPOSITORY

pytestmark = pytest.mark.root

PROGRAMS = {"shim": "containerd-shim-runc-v2", "runsc": "runsc"}
NO_CHMOD = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["chmod", "fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO"}],
}


@pytest.fixture(params=PROGRAMS)
def other(request: pytest.FixtureRequest) -> str:
    handler = str(request.param)
    if shutil.which(PROGRAMS[handler]) is None:
        pytest.skip(f"{PROGRAMS[handler]} is not installed")
    return handler


def test_a_handler_that_cannot_tell_of_calls_refuses_container_and_recording(daemon, cri, busybox, other):
    for key, value in (
        ("seccomp-record.noded.io", "true"),
        ("seccomp-notifier-action.noded.io", "stop"),
        ("io.kubernetes.cri-o.seccompNotifierAction", "log"),
    ):
        config = daemon.pod_config(cri, annotations={key: value})
        pod = cri.run_pod(config, other)
        with pytest.raises(grpc.RpcError) as refused:
            cri.create(pod, cri.container_config("web", busybox, ["true"]), config)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert f"runtime handler {other!r} cannot tell of system calls" in refused.value.details()
        assert not cri.containers()
        cri.remove_pod(pod)
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, other)
    cri.run_container(pod, cri.container_config("web", busybox, ["sleep", "1000"]), config)
    asked = subprocess.run(
        [sys.executable, "-m", "noded", "seccomp", "record", pod, "--address", daemon.address],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert asked.returncode == 1
    assert "cannot tell of system calls" in asked.stderr
    assert not list((daemon.state / "pods").glob("*/record-seccomp"))  # nor is it wished for later


def test_a_shim_enforces_the_profile_all_the_same(daemon, cri, busybox, tmp_path):
    if shutil.which(PROGRAMS["shim"]) is None:
        pytest.skip(f"{PROGRAMS['shim']} is not installed")
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps(NO_CHMOD))
    config = daemon.pod_config(cri)
    pod = cri.run_pod(config, "shim")
    container = cri.container_config("web", busybox, ["/bin/sh", "-c", "chmod 600 /etc/passwd 2>&1; exit $?"])
    choice = container.linux.security_context.seccomp
    choice.profile_type = cri.pb.SecurityProfile.ProfileType.Value("Localhost")
    choice.localhost_ref = str(profile)
    assert cri.wait_exited(cri.run_container(pod, container, config)).exit_code == 1
