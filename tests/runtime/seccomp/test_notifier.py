"""The seccomp notifier and recorder with real containers, over a killed daemon too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest

from tests.support.daemon import REPOSITORY
from tests.support.documents import documented

pytestmark = pytest.mark.root

ACTION = "io.kubernetes.cri-o.seccompNotifierAction"
RECORD = "seccomp-record.noded.io"
WORKLOAD = (
    "echo one > /tmp/a; mkdir /tmp/d; cat /tmp/a; "
    "while [ ! -e /tmp/go ]; do sleep 0.05; done; rmdir /tmp/d; echo end"
)


def make(daemon, cri, handler, image, annotations, script, *, seccomp="RuntimeDefault", localhost=""):
    config = daemon.pod_config(cri, annotations=annotations)
    pod = cri.run_pod(config, handler)
    container = cri.container_config("web", image, ["/bin/sh", "-c", script])
    choice = container.linux.security_context.seccomp
    choice.profile_type = cri.pb.SecurityProfile.ProfileType.Value(seccomp)
    choice.localhost_ref = str(localhost)
    return pod, cri.create(pod, container, config), daemon.pod_logs / config.metadata.name


def log_of(daemon, directory: Path) -> str:
    return (Path(f"{directory}-0") / "web.log").read_text()


def noded(daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "noded", *arguments, "--address", daemon.address],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def holders(daemon) -> list[int]:
    needle = os.fsencode(daemon.state / "seccomp")
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if needle in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_a_recording_survives_a_killed_daemon_and_its_profile_works_on_both_runtimes(
    daemon, cri, busybox, handler, tmp_path
):
    pod, container, log = make(daemon, cri, handler, busybox, {RECORD: "true"}, WORKLOAD)
    cri.start(container)
    [holder] = holders(daemon)
    daemon.restart(hard=True)
    cri.stop("0" * 64)
    assert holders(daemon) == [holder]
    assert cri.exec(container, "touch", "/tmp/go").exit_code == 0
    assert cri.wait_exited(container).exit_code == 0
    assert log_of(daemon, log).splitlines()[-1].endswith("end")
    profile = tmp_path / "web.json"
    done = noded(daemon, "seccomp", "record", pod, "-c", "web", "-o", str(profile))
    assert done.returncode == 0, done.stderr
    rules = json.loads(profile.read_text())["syscalls"]
    names = {name for rule in rules for name in rule["names"]}
    assert {"mkdir", "rmdir", "execve", "write"} <= names
    assert not {"chmod", "fchmodat", "ptrace", "bind"} & names
    cri.remove_pod(pod)
    assert holders(daemon) == []
    for other in ("runc", "crun"):
        script = f"touch /tmp/go; {WORKLOAD}; chmod 600 /etc/passwd; echo chmod:$?"
        pod, container, log = make(
            daemon, cri, other, busybox, {}, script, seccomp="Localhost", localhost=profile
        )
        cri.start(container)
        assert cri.wait_exited(container).exit_code == 0, log_of(daemon, log)
        text = log_of(daemon, log)
        assert "Operation not permitted" in text
        # conmon reads two pipes: the order of the last lines is not that of the writes.
        assert any(line.endswith("chmod:1") for line in text.splitlines())


def test_a_container_is_recorded_from_its_next_start_after_the_operator_said_so(daemon, cri, busybox):
    pod, container, _ = make(daemon, cri, "runc", busybox, {}, "exit 0", seccomp="Unconfined")
    cri.start(container)
    cri.wait_exited(container)
    asked = noded(daemon, "seccomp", "record", pod)
    assert asked.returncode == 1
    assert "web is not recorded: it will be from its next start" in asked.stderr
    config = cri.pod_config("x")
    again = cri.container_config("web", busybox, ["/bin/sh", "-c", "mkdir /x"], attempt=1)
    container = cri.run_container(pod, again, config)
    cri.wait_exited(container)
    done = noded(daemon, "seccomp", "record", pod, "--json")
    assert done.returncode == 0, done.stderr
    [recording] = documented("seccomp record", done.stdout)["recordings"]
    assert recording["attempt"] == 1
    assert recording["calls"]["mkdir"] == 1


def test_a_blocked_call_is_reported_and_answered_as_the_profile_says(daemon, cri, busybox, handler):
    script = "unshare -U true; echo unshare:$?; mount -t tmpfs x /tmp; echo mount:$?"
    _, container, log = make(daemon, cri, handler, busybox, {ACTION: "log"}, script)
    cri.start(container)
    assert cri.wait_exited(container).exit_code == 0
    text = log_of(daemon, log)
    assert text.count("Operation not permitted") + text.count("permission denied") == 2, text
    daemon_log = wait_for(lambda: daemon.log_text(), lambda found: "syscall=mount" in found)
    assert "seccomp blocked a system call" in daemon_log


def test_a_container_that_makes_a_blocked_call_is_stopped_and_says_why(daemon, cri, busybox):
    script = "mount -t tmpfs x /tmp; sleep 1000"
    started = []
    for handler in ("runc", "crun"):
        _, container, _ = make(daemon, cri, handler, busybox, {f"{ACTION}": "stop"}, script)
        cri.start(container)
        started.append(container)
    for container in started:
        status = cri.wait_exited(container)
        assert status.reason == "seccomp killed"
        assert status.message == "used forbidden system calls: mount"
        assert status.exit_code == 137


def test_an_unknown_action_fails_the_create(daemon, cri, busybox):
    annotations = {f"{ACTION}/web": "kill"}
    with pytest.raises(grpc.RpcError) as caught:
        make(daemon, cri, "runc", busybox, annotations, "true")
    assert "'kill' is unknown, use stop or log" in caught.value.details()
    assert holders(daemon) == []


def wait_for(read, good, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not good(found := read()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found
