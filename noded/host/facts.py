"""Collects what the node can do, once at start."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from noded.config import Config
from noded.errors import InvalidArgument
from noded.host import cgroup_hierarchies, lsm, processes
from noded.host.boot import boot_id
from noded.model.host import CgroupDriver, HostFacts

_SYSTEMD_BOOTED = Path("/run/systemd/system")


def parse_kernel_release(release: str) -> tuple[int, int]:
    """Return major and minor of `6.18.44-1-amd64`, (0, 0) for what is no version."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def choose_driver(wanted: str, *, systemd: bool) -> CgroupDriver:
    """Resolve `cgroup_driver` of the configuration.

    Raises: InvalidArgument naming the key.
    """
    if wanted == "auto":
        return CgroupDriver.SYSTEMD if systemd else CgroupDriver.CGROUPFS
    try:
        driver = CgroupDriver(wanted)
    except ValueError:
        raise InvalidArgument(f"cgroup_driver: {wanted!r} is none of auto, cgroupfs, systemd") from None
    if driver is CgroupDriver.SYSTEMD and not systemd:
        raise InvalidArgument("cgroup_driver: systemd is asked for, but it does not run on this node")
    return driver


def systemd_runs() -> bool:
    """Tell whether systemd is PID 1. Spec: sd_booted(3)."""
    return _SYSTEMD_BOOTED.is_dir()


def collect(config: Config) -> HostFacts:
    """Read all facts. Blocks for some milliseconds.

    Raises: FailedPrecondition without a cgroup file system; InvalidArgument for a bad cgroup_driver.
    """
    mode, controllers = cgroup_hierarchies.detect()
    return HostFacts(
        cgroup_mode=mode,
        cgroup_driver=choose_driver(config.cgroup_driver, systemd=systemd_runs()),
        cgroup_controllers=controllers,
        kernel=parse_kernel_release(os.uname().release),
        architecture=platform.machine(),
        bounding_capabilities=processes.bounding_capabilities(),
        may_lower_oom_score_adj="CAP_SYS_RESOURCE" in processes.effective_capabilities(),
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        apparmor=lsm.apparmor_enabled(),
        selinux=lsm.selinux_enabled(),
        boot_id=boot_id(),
        swap_accounting=cgroup_hierarchies.swap_accounting(),
        fips=_fips(),
    )


def _fips() -> bool:
    try:
        return Path("/proc/sys/crypto/fips_enabled").read_text().strip() == "1"
    except OSError:  # a kernel without the option
        return False
