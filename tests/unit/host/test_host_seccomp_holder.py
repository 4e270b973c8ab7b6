"""The program that holds notification descriptors: found by its socket, gone when nobody told it to serve."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from noded.errors import Unavailable
from noded.host import seccomp_holder, seccomp_notify


def test_a_holder_is_found_by_its_socket_and_ended_once_or_twice(tmp_path: Path):
    path, report, pids = tmp_path / "x.sock", tmp_path / "x.json", []
    seccomp_holder.end(path)  # none there
    seccomp_holder.start(path, report, None, pids.append)
    pidfd = os.pidfd_open(pids[0])
    try:
        seccomp_holder.end(path)
        assert select.select([pidfd], [], [], 0)[0]
    finally:
        os.close(pidfd)
    assert not path.exists()
    seccomp_holder.end(path)


def test_a_second_start_replaces_what_the_first_left(tmp_path: Path):
    path, report, pids = tmp_path / "x.sock", tmp_path / "x.json", []
    seccomp_holder.start(path, report, None, pids.append)
    report.write_text("{}")
    seccomp_holder.start(path, report, {"": 1}, pids.append)
    assert pids[0] != pids[1]
    assert not report.exists()
    seccomp_holder.end(path)


def test_a_failure_before_it_may_serve_ends_it(tmp_path: Path):
    def refuse(pid: int) -> None:
        raise PermissionError("no such cgroup")

    with pytest.raises(PermissionError):
        seccomp_holder.start(tmp_path / "x.sock", tmp_path / "x.json", None, refuse)
    seccomp_holder.end(tmp_path / "x.sock")
    with pytest.raises(Unavailable, match="did not start"):
        seccomp_holder.start(tmp_path / "missing" / "x.sock", tmp_path / "x.json", None, lambda pid: None)


def test_a_holder_whose_daemon_died_goes_away_by_itself(tmp_path: Path):
    path = tmp_path / "x.sock"
    holder = subprocess.Popen(
        [sys.executable, "-I", "-S", seccomp_notify.__file__, str(path), str(tmp_path / "x.json"), "null"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout.readline() == b"listening\n"
        holder.stdin.close()
        assert holder.wait(20) == 0
    assert not path.exists()


def test_only_a_filters_descriptor_is_taken_for_one(tmp_path: Path):
    with (tmp_path / "file").open("wb") as file:
        assert not seccomp_notify.is_notification_fd(file.fileno())


def test_descriptors_above_those_of_select_are_waited_for(tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 2048:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, hard), hard))
    path, taken = tmp_path / "x.sock", []
    try:
        while not taken or taken[-1] < 1024:
            taken.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        seccomp_holder.start(path, tmp_path / "x.json", None, lambda pid: None)
        seccomp_holder.end(path)
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not path.exists()
