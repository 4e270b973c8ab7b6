"""Removes everything with the demo's name from the host, however the demo ended.

After an orderly end there are only the bridge and the directories. After a failure this also
finds processes, mounts, network namespaces and cgroups, and says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from noded.cli.demo import network
from noded.cli.demo.node import Node, base_directory
from noded.cli.run import cgroup_parent
from noded.errors import FailedPrecondition, NodedError
from noded.host import cgroup_hierarchies, mountinfo, mounts, namespaces
from noded.host.cgroup_names import expand_slice
from noded.host.cgroups import Cgroups
from noded.host.processes import ProcessIdentity, commands, kill_identity
from noded.model.host import CgroupDriver
from noded.model.paths import Layout

_NETNS_DIRECTORY = Layout(Path("/"), Path("/")).netns_dir


class HostBefore:
    """What the demo must put back: facts taken before its first change."""

    def __init__(self) -> None:
        self.netns_existed = _NETNS_DIRECTORY.is_dir()
        self.netns_mounted = mountinfo.is_mountpoint(_NETNS_DIRECTORY)
        self.forwarding = network.forwarding()


def remove_all(node: Node, before: HostBefore) -> list[str]:
    """Remove all traces of a stopped node; return what an orderly end would not have left.

    Goes on after a failure, whose text is then in the list: one stuck mount must not keep the rest.
    """
    leftovers: list[str] = []
    sandboxes = _sandbox_ids(node)
    for step in (
        lambda: _processes(node, leftovers),
        lambda: _cgroups(node, leftovers),
        lambda: _mounts(node, leftovers),
        lambda: _network_namespaces(sandboxes, leftovers),
        lambda: network.delete_bridge(node.bridge),
        lambda: network.restore_forwarding(before.forwarding),
        lambda: _netns_directory(before),
        lambda: _directory(node.state),
        lambda: _directory(node.directory),  # last: a killed demo is recognised by it
    ):
        try:
            step()
        except (NodedError, OSError, subprocess.SubprocessError) as error:
            leftovers.append(f"not removed: {error}")
    return leftovers


def sweep_killed_demos(before: HostBefore) -> list[str]:
    """Remove what demos left that were killed with SIGKILL; return their names."""
    swept = []
    for directory in sorted(base_directory().glob("noded-demo-*")):
        node = Node(directory.name)
        try:
            with node.claim():
                remove_all(node, before)
        except FailedPrecondition:
            continue  # it runs
        swept.append(node.name)
    return swept


def _processes(node: Node, leftovers: list[str]) -> None:
    """The daemon and its monitors, known by their arguments."""
    needles = [os.fsencode(path) for path in (node.directory, node.state)]
    for pid, words in commands():
        arguments = b" ".join(words)
        if pid == os.getpid() or not any(needle in arguments for needle in needles):
            continue
        identity = ProcessIdentity.of(pid)
        if identity is not None and kill_identity(identity):
            leftovers.append(f"process {pid}: {arguments.decode(errors='replace')[:80]}")


def _directory(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def _sandbox_ids(node: Node) -> list[str]:
    try:
        return [path.name for path in (node.state / "pods").iterdir()]
    except FileNotFoundError:
        return []


def _cgroups(node: Node, leftovers: list[str]) -> None:
    cgroups = Cgroups(cgroup_hierarchies.detect()[0], CgroupDriver.CGROUPFS)
    for systemd in (False, True):
        parent = cgroup_parent(node.name, systemd=systemd)
        place = expand_slice(parent) if systemd else parent
        if pids := cgroups.procs(place):
            leftovers.append(f"processes {sorted(pids)} in cgroup {place}")
            cgroups.kill(place)
        if cgroups.exists(place) and systemd and Path("/run/systemd/system").is_dir():
            subprocess.run(["systemctl", "stop", parent], check=False, timeout=30, capture_output=True)
        cgroups.remove(place)


def _mounts(node: Node, leftovers: list[str]) -> None:
    for directory in {node.directory, node.state}:
        for point in mountinfo.mounts_below(directory):
            leftovers.append(f"mount {point}")
            mounts.unmount(point, detach=True)


def _network_namespaces(sandboxes: list[str], leftovers: list[str]) -> None:
    for sandbox in sandboxes:
        pin = _NETNS_DIRECTORY / f"noded-{sandbox}"
        if pin.exists():
            leftovers.append(f"network namespace {pin.name}")
            namespaces.unpin(pin)


def _netns_directory(before: HostBefore) -> None:
    """Undo the shared mount on /run/netns where the demo was the first to need it."""
    try:
        if before.netns_mounted or any(os.scandir(_NETNS_DIRECTORY)):
            return
    except FileNotFoundError:
        return
    mounts.unmount(_NETNS_DIRECTORY)
    if not before.netns_existed:
        _NETNS_DIRECTORY.rmdir()
