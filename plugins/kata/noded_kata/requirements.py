"""What Kata Containers needs on a node, looked at one by one.

Kata's configuration file names most of it: the table `[hypervisor.NAME]` has the paths of the
hypervisor, of the guest's kernel and image, and of the file system daemon.
"""

from __future__ import annotations

import os
import shutil
import stat
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from noded.api import Finding

PROGRAM = "containerd-shim-kata-v2"
PACKAGE = "kata-containers"

# Where the shim looks for its configuration, in this order, when it is told none.
DEFAULT_CONFIGURATIONS = (
    Path("/etc/kata-containers/configuration.toml"),
    Path("/usr/share/defaults/kata-containers/configuration.toml"),
    Path("/opt/kata/share/defaults/kata-containers/configuration.toml"),
)

# Hypervisors whose guests are reached over the kernel's vsock; the others have a socket file for it.
_KERNEL_VSOCK = frozenset({"qemu", "acrn", "stratovirt"})
_LIMIT_BYTES = 1 << 20


def requirements(path: str, config_path: str) -> Iterator[Finding]:
    """Look at everything. Blocks on a few files.

    Args:
        path: name or path of the shim, "" = Kata's own.
        config_path: the configuration file, "" = the first of the defaults that is there.
    """
    yield _program(path or PROGRAM)
    yield _device(Path("/dev/kvm"), "enable virtualisation in the firmware and load the module kvm")
    configuration = _configuration(config_path)
    if configuration is None:
        places = config_path or ", ".join(map(str, DEFAULT_CONFIGURATIONS))
        yield Finding("Kata's configuration", False, f"there is none: install {PACKAGE}; looked at {places}")
        return
    try:
        with configuration.open("rb") as file:
            document = tomllib.loads(file.read(_LIMIT_BYTES).decode())
    except (OSError, ValueError) as error:
        yield Finding(str(configuration), False, f"cannot be read: {error}")
        return
    yield from _named(configuration, document)


def _named(configuration: Path, document: Mapping[str, Any]) -> Iterator[Finding]:
    tables = document.get("hypervisor")
    hypervisors = tables if isinstance(tables, dict) else {}
    if len(hypervisors) != 1:
        names = ", ".join(hypervisors) or "none"
        yield Finding(str(configuration), False, f"it must have one table [hypervisor.NAME], but has {names}")
        return
    ((name, settings),) = hypervisors.items()
    if not isinstance(settings, dict):
        yield Finding(str(configuration), False, f"hypervisor.{name} is not a table")
        return
    yield Finding(str(configuration), True, f"hypervisor {name}")
    if name in _KERNEL_VSOCK:
        yield _device(Path("/dev/vhost-vsock"), "load the module vhost_vsock")
    wanted = [("path", "hypervisor", True), ("kernel", "guest kernel", False)]
    wanted.append(
        ("initrd", "guest initrd", False) if settings.get("initrd") else ("image", "guest image", False)
    )
    if str(settings.get("shared_fs", "")).startswith("virtio-fs") and settings.get("virtio_fs_daemon"):
        wanted.append(("virtio_fs_daemon", "virtiofsd", True))
    if settings.get("firmware"):
        wanted.append(("firmware", "firmware", False))
    for key, what, executable in wanted:
        yield _file(f"hypervisor.{name}.{key} in {configuration}", settings.get(key), what, executable)


def _program(name: str) -> Finding:
    found = shutil.which(name)
    if found is None:
        return Finding(name, False, f"not found in PATH: install {PACKAGE}, or set `path` of the handler")
    return Finding(name, True, found)


def _device(path: Path, cure: str) -> Finding:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return Finding(str(path), False, f"{error.strerror}: {cure}")
    if not stat.S_ISCHR(mode) or not os.access(path, os.R_OK | os.W_OK):
        return Finding(str(path), False, f"it is no device that noded may use: {cure}")
    return Finding(str(path), True)


def _configuration(config_path: str) -> Path | None:
    candidates = (Path(config_path),) if config_path else DEFAULT_CONFIGURATIONS
    return next((path for path in candidates if path.is_file()), None)


def _file(where: str, value: Any, what: str, executable: bool) -> Finding:
    if not isinstance(value, str) or not value:
        return Finding(what, False, f"{where} is not set")
    path = Path(value)
    if not path.is_file():
        return Finding(what, False, f"{where} names {value}, which is not there: install it")
    if executable and not os.access(path, os.X_OK):
        return Finding(what, False, f"{where} names {value}, which is not executable")
    return Finding(what, True, value)
