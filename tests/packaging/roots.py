"""Root file systems of other systems, and packages to install there."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGING = REPOSITORY / "packaging"
# Made by packaging/setup/roots.sh, because tests have no network in their own namespaces.
KEPT = REPOSITORY / "build" / "packages" / "roots"
WORK = REPOSITORY / "build" / "packages"
BUILD_SECONDS = 900
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Becomes the root directory for real, as runc cannot pivot out of a chroot; then says so and waits.
_HOLD = """
set -e
mount --rbind "$1" "$1"; cd "$1"
mount -t proc proc proc; mount --rbind /sys sys; mount --rbind /dev dev; mount -t tmpfs -o mode=755 tmpfs run
mkdir -p .old; pivot_root . .old; cd /; umount --lazy /.old; rmdir /.old
mount --make-rshared /
echo ready
exec sleep infinity
"""


class Root:
    """An unpacked root file system that programs run in, in a mount namespace of its own."""

    def __init__(self, directory: Path, holder: subprocess.Popen[str]) -> None:
        self.directory = directory
        self._holder = holder

    def path(self, inside: str) -> Path:
        """The way to a file inside from here, through its mounts."""
        return Path(f"/proc/{self._holder.pid}/root") / inside.lstrip("/")

    def command(self, *arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
        """What runs a program inside."""
        variables = {"HOME": "/root", "PATH": PATH, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
        pairs = [f"{name}={value}" for name, value in {**variables, **(environment or {})}.items()]
        return ["nsenter", f"--target={self._holder.pid}", "--mount", "env", "-i", *pairs, *arguments]

    def run(self, *arguments: str, status: int | None = 0, seconds: float = 300) -> str:
        """Run a program inside; return both its outputs."""
        done = subprocess.run(
            self.command(*arguments),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip
        assert status is None or done.returncode == status, f"{arguments}:\n{done.stdout}"
        return done.stdout

    def files(self) -> set[str]:
        """Every path on its disk but what any package manager writes."""
        left_out = (
            "/var/lib/dpkg", "/var/lib/rpm", "/usr/lib/sysimage", "/var/cache", "/var/log", "/debs", "/tmp",
            "/usr/lib/python3",
        )  # fmt: skip
        found = set()
        for parent, directories, names in os.walk(self.directory):
            inside = parent.removeprefix(str(self.directory)) or "/"
            directories[:] = [
                name for name in directories if not os.path.join(inside, name).startswith(left_out)
            ]
            found |= {os.path.join(inside, name) for name in (*directories, *names)}
        return found

    def mounts(self) -> list[str]:
        """Mount points inside."""
        lines = Path(f"/proc/{self._holder.pid}/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in lines]

    def give(self, packages: Sequence[Path], directory: str = "/debs") -> list[str]:
        """Copy packages inside; return their paths there."""
        target = self.directory / directory.lstrip("/")
        target.mkdir(exist_ok=True)
        for package in packages:
            shutil.copy(package, target)
        return [f"{directory}/{package.name}" for package in packages]


@contextmanager
def unpacked_root(suite: str, directory: Path, kept: Path) -> Iterator[Root]:
    """A fresh copy of a release, from the tar file that was made of it or from its mirror."""
    directory.mkdir()
    if kept.exists():
        subprocess.run(["tar", "-C", directory, "-xpf", kept], check=True)
    else:
        _debootstrap(suite, directory)
    # Maintainer scripts find no service manager here, and must not look for one.
    policy = directory / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    holder = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _HOLD, "sh", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield Root(directory, holder)
    finally:
        holder.kill()
        holder.wait()
        subprocess.run(["rm", "-rf", "--one-file-system", directory], check=False)


def _debootstrap(suite: str, directory: Path) -> None:
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed: apt-get install debootstrap")
    if suite not in ("bookworm", "trixie"):
        pytest.skip(f"no root file system of {suite}: run packaging/setup/roots.sh where there is a network")
    try:
        socket.create_connection(("deb.debian.org", 80), 10).close()
    except OSError as error:
        pytest.skip(f"no root file system of {suite} and no network ({error}): run packaging/setup/roots.sh")
    includes = "catatonit,conmon,containernetworking-plugins,crun,iptables,nftables,python3,runc"
    subprocess.run(
        [
            "debootstrap", "--variant=minbase", f"--include={includes}", suite, str(directory),
            "http://deb.debian.org/debian", "/usr/share/debootstrap/scripts/sid",
        ],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def source_digest() -> str:
    """Of everything that packages are made from."""
    digest = hashlib.sha256()
    for name in (
        "noded",
        "plugins",
        "packaging",
        "pyproject.toml",
        "requirements.lock",
        "README.md",
        "LICENSE",
    ):
        top = REPOSITORY / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
                digest.update(f"{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def kept_packages(kind: str) -> list[Path]:
    """Packages of this tree, built when it has changed; those of older trees are removed."""
    directory = WORK / f"{kind}-{source_digest()}"
    if not directory.exists():
        for old in WORK.glob(f"{kind}-*"):
            shutil.rmtree(old, ignore_errors=True)
        WORK.mkdir(parents=True, exist_ok=True)
        # Not by process id: two runs in PID namespaces of their own may have the same one.
        with tempfile.TemporaryDirectory(prefix=f".{kind}-", dir=WORK) as name:
            build_packages(kind, Path(name, "made"))
            Path(name, "made").rename(directory)
    return sorted(directory.glob(f"*.{kind}"))


def build_packages(
    kind: str, output: Path, *options: str, work: Path = WORK, environment: Mapping[str, str] | None = None
) -> list[Path]:
    """Run what `make deb` and `make rpm` run; return the packages."""
    done = subprocess.run(
        [sys.executable, "-m", "noded_packaging", kind, f"--output={output}", f"--work={work}", *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "packaging"), **(environment or {})},
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode and "No matching distribution" in done.stderr + done.stdout:
        pytest.skip("the locked wheels cannot be downloaded: run packaging/setup/roots.sh with a network")
    assert done.returncode == 0, done.stdout + done.stderr
    return [Path(line) for line in done.stdout.splitlines()]
