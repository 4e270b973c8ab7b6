#!/usr/bin/python3 -IBS
"""purge [--config FILE]: stop all pods and remove everything that noded keeps on this node.

Stop noded and, better, kubelet first. Pods are stopped and removed by a noded that runs only for
this and listens where no kubelet calls, so networks are torn down as always. What even that leaves
is killed and unmounted. Images, containers and the database are deleted. Configuration stays.

Exit status: 0 when nothing is left, 1 otherwise, with a line for each thing on standard error.
"""

import argparse
import asyncio
import fcntl
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import noded_start

noded_start.prepare()

from noded import settings
from noded.cli import alone
from noded.cli.client import Daemon, wait_for
from noded.config import Config
from noded.errors import NodedError
from noded.host.cgroup_names import CRIO_PREFIX, PREFIX
from noded.host.mountinfo import parse_mountinfo, read_mountinfo
from noded.model.paths import Layout
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri
from noded.tables import DEFAULT_PATH

# Plugins whose packages were removed before noded's: pods may still need them.
REMOVED_PLUGINS = "/var/lib/noded/removed/plugins"
STOP_SECONDS = 30.0
POD_SECONDS = 120.0


class Report:
    """Says what could not be done, and remembers that there was something."""

    def __init__(self) -> None:
        self.failed = False

    def __call__(self, text: str) -> None:
        self.failed = True
        print(f"noded: purge: {text}", file=sys.stderr)


def main() -> int:
    if os.geteuid() != 0:
        sys.exit("noded: purge: run as root")
    parser = argparse.ArgumentParser(prog="purge", description="Remove every pod, and all that noded keeps.")
    parser.add_argument("--config", type=Path, default=DEFAULT_PATH, metavar="FILE")
    report = Report()
    config = configuration(parser.parse_args().config, report)
    layout = Layout(config.root, config.state, images=config.images.root)
    if in_use(layout):
        sys.exit("noded: purge: noded is running: stop it first (systemctl stop noded.socket noded.service)")
    sandboxes = []
    if layout.database.exists():
        try:
            sandboxes = stop_pods(config, report)
        except (NodedError, OSError) as error:
            report(f"pods are not stopped in order: {error}")
    ids = known_ids(layout) | set(sandboxes)
    kill_cgroups(ids, report)
    remove(layout, ids, report)
    return 1 if report.failed else 0


def configuration(path: Path, report: Report) -> Config:
    """The configuration in effect; where it is broken, the directories that noded has by default."""
    try:
        return settings.load(path)
    except NodedError as error:
        report(f"{error}; the default directories are purged")
        return Config()


def in_use(layout: Layout) -> bool:
    """Whether a daemon holds the lock of the root directory."""
    try:
        with open(layout.root / "noded.lock", "rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def stop_pods(config: Config, report: Report) -> list[str]:
    """Run a noded apart from all clients and have it stop and remove every pod; return their ids."""
    with alone.running(config, further_paths=[REMOVED_PLUGINS]) as address:
        return wait_for(remove_pods(address, report))


async def remove_pods(address: str, report: Report) -> list[str]:
    """Stop and remove every pod that this daemon has, and give up what it owes; return all ids."""
    async with Daemon(address) as daemon:
        reply = await daemon.runtime(
            "ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse
        )
        ids = [pod.id for pod in reply.items]
        limit = asyncio.Semaphore(4)

        async def remove_pod(sandbox_id: str) -> None:
            async with limit:
                try:
                    await daemon.runtime(
                        "StopPodSandbox",
                        cri.StopPodSandboxRequest(pod_sandbox_id=sandbox_id),
                        cri.StopPodSandboxResponse,
                        POD_SECONDS,
                    )
                    await daemon.runtime(
                        "RemovePodSandbox",
                        cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox_id),
                        cri.RemovePodSandboxResponse,
                        POD_SECONDS,
                    )
                except NodedError as error:
                    report(f"pod {sandbox_id}: {error}")

        await asyncio.gather(*(remove_pod(each) for each in ids))
        owed = await daemon.admin("ListDebts", admin.ListDebtsRequest(), admin.ListDebtsResponse)
        for debt in owed.debts:
            report(f"{debt.kind} {debt.subject}: {debt.last_error}")
            try:
                request = admin.ForgiveDebtRequest(id=debt.id)
                await daemon.admin("ForgiveDebt", request, admin.ForgiveDebtResponse, POD_SECONDS)
            except NodedError as error:  # a container's: what is left of it is looked for by its names
                report(f"{debt.subject}: {error}")
        return [*ids, *(debt.id for debt in owed.debts)]


# what is left, by its names


def known_ids(layout: Layout) -> set[str]:
    """Ids of pods and containers, from the names of directories and namespace pins."""
    ids: set[str] = set()
    for directory in (layout.root / "containers", layout.state / "containers", layout.state / "pods"):
        if directory.is_dir():
            ids.update(entry.name for entry in directory.iterdir())
    if layout.netns_dir.is_dir():
        pins = (entry.name for entry in layout.netns_dir.iterdir())
        ids.update(name[6:] for name in pins if name.startswith("noded-") and is_id(name[6:]))
    return {each for each in ids if is_id(each)}


def is_id(name: str) -> bool:
    return len(name) == 64 and all(character in "0123456789abcdef" for character in name)


def kill_cgroups(ids: set[str], report: Report) -> None:
    """Kill what runs in the cgroups of these ids, and remove them."""
    names = {
        f"{prefix}-{kind}{each}{suffix}"
        for each in ids
        for prefix in (PREFIX, CRIO_PREFIX)
        for kind in ("", "conmon-")
        for suffix in ("", ".scope")
    }
    found = []
    for parent, directories, _ in os.walk("/sys/fs/cgroup"):
        found += [os.path.join(parent, name) for name in directories if name in names]
    for cgroup in found:
        for parent, _, _ in os.walk(cgroup, topdown=False):
            kill_all(parent)
            try:
                os.rmdir(parent)
            except OSError as error:
                report(f"cgroup {parent}: {error.strerror}")


def kill_all(cgroup: str) -> None:
    """SIGKILL every process of one cgroup, and wait until they are gone."""
    try:
        with open(os.path.join(cgroup, "cgroup.procs")) as listed:
            pids = [int(line) for line in listed]
    except OSError:
        return
    for pid in pids:
        try:
            watched = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            signal.pidfd_send_signal(watched, signal.SIGKILL)
            select.select([watched], [], [], STOP_SECONDS)
        except ProcessLookupError:
            pass
        finally:
            os.close(watched)


def remove(layout: Layout, ids: set[str], report: Report) -> None:
    """Unmount and delete the directories and the pins of network namespaces."""
    pins = [layout.namespace_pin(each, "net") for each in sorted(ids)]
    images = [layout.content, layout.layers] if is_our_root(layout.image_root) else []
    places = [*map(str, (layout.root, layout.state, *images, *pins))]
    points = [str(entry.mount_point) for entry in parse_mountinfo(read_mountinfo())]
    for point in reversed(points):  # the kernel lists a mount after the one that it is in
        inside = any(point.startswith(f"{place}/") for place in places) or point in map(str, pins)
        if inside:
            done = subprocess.run(["umount", "--lazy", point], stderr=subprocess.PIPE, text=True)
            if done.returncode:
                report(done.stderr.strip())
    for pin in pins:
        pin.unlink(missing_ok=True)
    release_netns_dir(layout.netns_dir)
    left = [str(entry.mount_point) for entry in parse_mountinfo(read_mountinfo())]
    if any(point.startswith(f"{place}/") for point in left for place in places):
        return  # said above; deleting now could delete what is mounted there
    if not is_our_root(layout.root):
        if layout.root.is_dir() and any(layout.root.iterdir()):
            report(f"{layout.root} does not look like a root directory of noded: it stays")
    else:
        delete(layout.root, report)
    if images and layout.image_root.is_dir():  # another directory than the root: what is noded's in it
        for directory in images:
            delete(directory, report)
        (layout.image_root / "noded.lock").unlink(missing_ok=True)
        with suppress(OSError):  # something else is there, or it is a disk of its own
            layout.image_root.rmdir()
    for name in ("pods", "containers", "exits", "runtimes", "seccomp"):
        delete(layout.state / name, report)
    for file in (layout.state / "noded.sock", *layout.state.glob("stacks-*.txt")):
        file.unlink(missing_ok=True)
    try:
        layout.state.rmdir()
    except FileNotFoundError:
        pass
    except OSError as error:
        report(f"{layout.state}: {error.strerror}")


def release_netns_dir(directory: Path) -> None:
    """Undo the bind mount that holds pins, unless another runtime or ip-netns(8) has some there."""
    try:
        if not any(directory.iterdir()):
            if os.path.ismount(directory):
                subprocess.run(["umount", directory], stderr=subprocess.DEVNULL)
            directory.rmdir()
    except OSError:
        pass


def is_our_root(root: Path) -> bool:
    return (root / "noded.lock").exists() or (root / "noded.db").exists()


def delete(directory: Path, report: Report) -> None:
    """Remove a tree. A mount point itself, for example a disk for images, is only emptied."""
    if not os.path.ismount(directory):
        shutil.rmtree(directory, onerror=lambda _call, path, error: unremoved(report, path, error[1]))
        return
    for entry in directory.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            delete(entry, report)
        else:
            entry.unlink()


def unremoved(report: Report, path: str, error: BaseException) -> None:
    if not isinstance(error, FileNotFoundError):
        report(f"{path}: {error}")


if __name__ == "__main__":
    sys.exit(main())
