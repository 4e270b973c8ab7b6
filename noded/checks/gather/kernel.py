"""The kernel, its control groups and security modules."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from noded.checks import facts
from noded.config import Config
from noded.errors import NodedError
from noded.host import cgroup_hierarchies, lsm, mountinfo
from noded.host.facts import choose_driver, systemd_runs

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin"
_SYSCTLS = ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables", "user.max_user_namespaces")


def text(path: str | Path) -> str:
    """What a file of the kernel says, "" when it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def sysctl(name: str) -> str:
    """A value below /proc/sys, "" when there is none; only the dots that separate are slashes there."""
    return text(f"/proc/sys/{name.replace('.', '/')}")


def read() -> facts.Kernel:
    """Facts of the running kernel."""
    kinds = os.listdir("/proc/self/ns") if os.path.isdir("/proc/self/ns") else []
    filesystems = (line.split()[-1] for line in text("/proc/filesystems").splitlines() if line.strip())
    return facts.Kernel(
        release=os.uname().release,
        namespaces=frozenset(kind for kind in kinds if "_" not in kind),
        filesystems=frozenset(filesystems),
        seccomp_actions=frozenset(text("/proc/sys/kernel/seccomp/actions_avail").split()),
        sysctls={name: value for name in _SYSCTLS if (value := sysctl(name))},
        firewall=frozenset(name for name in ("iptables", "nft") if shutil.which(name, path=PATH)),
        root_propagation=mountinfo.propagation(Path("/")),
    )


def cgroups(config: Config) -> facts.Cgroups:
    """Hierarchies, and the driver that noded would use."""
    systemd = systemd_runs()
    try:
        mode, controllers = cgroup_hierarchies.detect()
    except (NodedError, OSError) as error:
        return facts.Cgroups(problem=str(error), systemd=systemd, wanted_driver=config.cgroup_driver)
    try:
        driver = str(choose_driver(config.cgroup_driver, systemd=systemd))
    except NodedError:
        driver = ""
    return facts.Cgroups(
        mode=str(mode),
        controllers=controllers,
        wanted_driver=config.cgroup_driver,
        driver=driver,
        systemd=systemd,
    )


def security() -> facts.Security:
    """Security modules that are on."""
    return facts.Security(
        modules=tuple(filter(None, text("/sys/kernel/security/lsm").split(","))),
        apparmor=lsm.apparmor_enabled(),
        apparmor_parser=shutil.which("apparmor_parser", path=PATH) is not None,
        selinux=lsm.selinux_enabled(),
        selinux_enforcing=lsm.selinux_enforcing(),
    )
