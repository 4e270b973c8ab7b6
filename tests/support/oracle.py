"""The host oracle: everything on a node that a pod touches, as a value that can be compared.

    before = oracle.take()
    ...
    oracle.assert_unchanged(before)

What a snapshot holds is DESIGN's list: mounts, network namespaces, links, cgroups, processes, IPAM
files, run directories, database rows, the daemon's file descriptors, packet filter rules.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

from tests.support.daemon import NodedDaemon

SETTLE_SECONDS = 5.0
_PROGRAMS = re.compile(r"^(conmon|runc|crun|runsc|catatonit|containerd-shim)")
_NAMESPACES = ("mnt", "net", "ipc", "pid", "uts", "user", "cgroup")
# The portmap plugin makes these chains at its first use and never removes them.
_PORTMAP_SKELETON = re.compile(r"^-[NA] CNI-HOSTPORT-(MASQ|SETMARK|DNAT)\b(?!.* -j CNI-DN)|-j CNI-HOSTPORT-")
_TABLES = ("filter", "nat", "mangle", "raw", "security")

_DESCRIPTORS = "daemon file descriptors"

Facets = dict[str, Counter[str]]


class Oracle:
    """Takes snapshots of this host as seen from the test's namespaces, and of one daemon's files."""

    def __init__(self, daemon: NodedDaemon) -> None:
        self._daemon = daemon

    def take(self) -> Facets:
        """A snapshot now: facet -> what there is, with multiplicity."""
        return {
            "mounts": Counter(self._mounts()),
            "network namespaces": Counter(_names(Path("/run/netns"))),
            "links": Counter(self._links()),
            "cgroups": Counter(self._cgroups()),
            "processes": Counter(self._processes()),
            "IPAM files": Counter(self._ipam()),
            "run directories": Counter(self._run_directories()),
            "database rows": Counter(self._rows()),
            _DESCRIPTORS: Counter(self._descriptors()) - self._services(),
            "packet filter rules": Counter(_packet_filter()),
        }

    def assert_unchanged(self, before: Facets, settle_seconds: float = SETTLE_SECONDS) -> None:
        """Fail with a readable difference unless a snapshot equals `before`.

        The kernel finishes some removals after the call that asked for them has returned (cgroups
        of dying processes, links of a dying namespace), so equality may come within
        `settle_seconds`; what is not gone by then is a leak.
        """
        deadline = time.monotonic() + settle_seconds
        while difference := describe_difference(self._without_strangers(before), self.take()):
            if time.monotonic() > deadline:
                raise AssertionError(f"the host has changed:\n{difference}")
            time.sleep(0.05)

    def _without_strangers(self, before: Facets) -> Facets:
        """Leave out other people's mounts whose mount points are gone.

        Whoever removes a directory detaches what other mount namespaces have mounted there
        (mount_namespaces(7)), so a mount that was there when our namespace was made can go at any time.
        """
        ours = (str(self._daemon.directory), str(self._daemon.state), "/run/netns")
        there = set(self._mounts())  # of these no file system is asked: one may hang on purpose
        gone = [
            mount
            for mount in before["mounts"]
            if mount not in there and not mount.startswith(ours) and not os.path.lexists(mount.split(" ")[0])
        ]
        return {
            **before,
            "mounts": Counter({one: n for one, n in before["mounts"].items() if one not in gone}),
        }

    def _mounts(self) -> Iterator[str]:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields = line.split(" ")
            separator = fields.index("-", 6)
            fstype, source = fields[separator + 1 : separator + 3]
            root = fields[3] if fstype != "nsfs" else "(namespace)"
            yield f"{fields[4]} {fstype} {source} {root}"

    def _links(self) -> Iterator[str]:
        links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
        for line in links.splitlines():
            name = line.split(": ")[1].partition("@")[0]
            if name != self._daemon.bridge:  # comes with the first pod and stays, as on every node
                yield name

    def _cgroups(self) -> Iterator[str]:
        base = Path("/sys/fs/cgroup")
        parent = self._daemon.cgroup_parent.strip("/")
        for directory, _, _ in os.walk(base):
            path = str(Path(directory).relative_to(base))
            if Path(path).name != parent:  # kubelet's to make and to remove
                yield path

    def _processes(self) -> Iterator[str]:
        own = {kind: os.stat(f"/proc/self/ns/{kind}").st_ino for kind in _NAMESPACES}
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                stat = (path / "stat").read_text()
                command = stat[stat.index("(") + 1 : stat.rindex(")")]
                fields = stat[stat.rindex(")") + 2 :].split()
                if fields[0] in "ZX" or int(fields[6]) & 0x00200000:  # dead, or a kernel thread
                    continue
                elsewhere = any(
                    (path / "ns" / kind).stat().st_ino != own[kind] for kind in ("mnt", "net", "pid", "ipc")
                )
                if elsewhere or _PROGRAMS.match(command):
                    arguments = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    yield f"{path.name} (start {fields[19]}) {command}: {arguments.strip()[:120]}"

    def _ipam(self) -> Iterator[str]:
        for path in _files_below(self._daemon.ipam):
            # The plugin's own directory per network comes with the first pod and stays.
            if path.is_file() and path.name != "lock" and not path.name.startswith("last_reserved_ip"):
                yield f"{path.relative_to(self._daemon.ipam)}"

    def _run_directories(self) -> Iterator[str]:
        for path in _files_below(self._daemon.state):
            if not path.name.endswith(".sock"):
                yield str(path)
        for name in (
            "containers",
            "layers",
            "layers/.staging",
            "content/blobs/sha256",
            "content/ingest",
            "tmp",
        ):
            directory = self._daemon.root / name
            yield from (str(directory / entry) for entry in _names(directory))

    def _rows(self) -> Iterator[str]:
        database = self._daemon.root / "noded.db"
        if not database.exists():
            return
        # A daemon lets nobody else open its database.
        with (
            tempfile.TemporaryDirectory() as directory,
            closing(sqlite3.connect(copy_database(database, Path(directory)))) as connection,
        ):
            query = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            for (table,) in connection.execute(query).fetchall():
                key = "digest || ' ' || owner" if table == "leases" else "*"
                for row in connection.execute(f"SELECT {key} FROM {table}"):
                    yield f"{table}: {row[0]}"

    def _services(self) -> Counter[str]:
        """The descriptors of what the daemon starts with its first use and keeps until its end."""
        held: Counter[str] = Counter()
        if not self._daemon.running:
            return held
        for children in Path(f"/proc/{self._daemon.pid}/task").glob("*/children"):
            with suppress(OSError):
                for pid in children.read_text().split():
                    if b"noded.images.unpack.zygote" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        held.update(["anon_inode", "unix socket (unnamed)"])  # its pidfd, our way to it
        return held

    def _descriptors(self) -> Iterator[str]:
        if not self._daemon.running:
            return
        process = Path(f"/proc/{self._daemon.pid}")
        sockets = _sockets(process)
        for path in (process / "fd").iterdir():
            with suppress(OSError):
                kind, _, inode = os.readlink(path).rstrip("]").partition(":[")
                if kind == "socket" and inode:
                    # A listening socket keeps the name under which it was bound, with the pid.
                    yield sockets.get(inode, "socket of another kind").replace(
                        f"/.{self._daemon.pid:x}", "/.PID"
                    )
                elif "/timelines/" in kind or self._follows_seccomp(process / "fdinfo" / path.name):
                    continue  # opened with the first use, kept until the daemon's end
                else:
                    yield kind  # a path, or an anonymous thing without its number

    def _follows_seccomp(self, fdinfo: Path) -> bool:
        """Whether it is the inotify instance for the reports of seccomp listeners (proc(5), fdinfo)."""
        with suppress(OSError):
            inode = (self._daemon.state / "seccomp").stat().st_ino
            return f" ino:{inode:x} " in fdinfo.read_text()
        return False


def _sockets(process: Path) -> dict[str, str]:
    """Inode -> what the socket is connected to or bound to (proc(5))."""
    found = {}
    for line in (process / "net" / "unix").read_text().splitlines()[1:]:
        fields = line.split()
        found[fields[6]] = f"unix socket {fields[7] if len(fields) > 7 else '(unnamed)'}"
    for family in ("tcp", "tcp6", "udp", "udp6"):
        with suppress(FileNotFoundError):
            for line in (process / "net" / family).read_text().splitlines()[1:]:
                fields = line.split()
                address, port = fields[2].split(":")
                found[fields[9]] = f"{family} socket to {address}:{int(port, 16)}"
    for line in (process / "net" / "netlink").read_text().splitlines()[1:]:
        found[line.split()[-1]] = "netlink socket"
    return found


def describe_difference(before: Facets, after: Facets) -> str:
    """Lines `facet: + what is new`, `facet: - what is gone`; empty when nothing differs.

    Descriptors that the daemon has closed are no difference: it may have been in the middle of something,
    as right after its start.
    """
    lines = []
    for facet in before:
        gone = before[facet] - after[facet] if facet != _DESCRIPTORS else Counter()
        for sign, difference in (("+", after[facet] - before[facet]), ("-", gone)):
            lines += [
                f"  {facet}: {sign} {item}" + (f"  ({count} times)" if count > 1 else "")
                for item, count in sorted(difference.items())
            ]
    return "\n".join(lines)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except FileNotFoundError:
        return []


def _files_below(directory: Path) -> Iterator[Path]:
    for parent, directories, files in os.walk(directory):
        yield from (Path(parent) / name for name in (*directories, *files))


def _packet_filter() -> Iterator[str]:
    for program in ("iptables-save", "ip6tables-save"):
        if shutil.which(program):
            saved = subprocess.run([program], capture_output=True, text=True, check=True).stdout
            yield from _saved_rules(program.removesuffix("-save"), saved.splitlines())
    if shutil.which("nft"):
        listed = subprocess.run(
            ["nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True
        ).stdout
        yield from _nft_rules(listed.splitlines())


def _saved_rules(family: str, lines: Iterable[str]) -> Iterator[str]:
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy = line[1:].split(" ")[:2]
            # Built-in chains appear with the first rule of their table and stay.
            if policy == "-" and not name.startswith("CNI-HOSTPORT-"):
                yield f"{family} {table}: chain {name}"
        elif line.startswith("-") and not _PORTMAP_SKELETON.search(line):
            yield f"{family} {table}: {line}"


def _nft_rules(lines: Iterable[str]) -> Iterator[str]:
    """Rules of tables that iptables does not also show."""
    table = ""
    for line in lines:
        if line.startswith("table "):
            family, name = line.split()[1:3]
            table = "" if family in ("ip", "ip6") and name in _TABLES else f"{family} {name}"
        elif table and line.strip() not in ("", "}"):
            yield f"nft {table}: {line.strip()}"


def copy_database(database: Path, directory: Path) -> Path:
    """A copy of a database in use, with its log, as both were at one moment."""
    files = [database, database.with_name(f"{database.name}-wal")]

    def state() -> list[tuple[int, int]]:
        return [(stat.st_size, stat.st_mtime_ns) for file in files if file.exists() and (stat := file.stat())]

    while True:
        before = state()
        for file in files:
            (directory / file.name).unlink(missing_ok=True)
            with suppress(FileNotFoundError):  # no log
                shutil.copy(file, directory)
        if state() == before:
            return directory / database.name
