"""The small files a pod's containers share: resolv.conf, hostname, hosts, and /dev/shm.

Pure text builders first; `PodDirectory` puts them in place.
"""

from __future__ import annotations

import os
from pathlib import Path

import trio

from noded.host import files, mounts
from noded.host.relabel import relabel_tree
from noded.model.paths import Layout
from noded.model.pod import DNSConfig, IDMapping, NamespaceMode, PodConfig, UserNamespace
from noded.model.records import SandboxRecord

_SHM_BYTES = 64 * 1024 * 1024  # what Docker, containerd and CRI-O give a pod
_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")


def resolv_conf(dns: DNSConfig) -> str:
    """resolv.conf(5) of a pod's DNS configuration."""
    lines = []
    if dns.searches:
        lines.append("search " + " ".join(dns.searches))
    lines += [f"nameserver {server}" for server in dns.servers]
    if dns.options:
        lines.append("options " + " ".join(dns.options))
    return "".join(line + "\n" for line in lines)


def hosts(ips: tuple[str, ...], hostname: str) -> str:
    """hosts(5) for a pod whose kubelet mounts none: loopback and the pod's own name."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    if hostname:
        lines += [f"{ip}\t{hostname}" for ip in ips]
    return "".join(line + "\n" for line in lines)


class PodDirectory:
    """Makes and removes `state/pods/ID`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    async def make(
        self, record: SandboxRecord, hostname: str, *, shm_bytes: int | None = None, label: str = ""
    ) -> None:
        """Write the files and mount /dev/shm. Leaves pieces on failure; `remove` takes them.

        Args:
            shm_bytes: most that /dev/shm holds, None = 64 MiB.
            label: SELinux context of what the containers use, "" = none.
        """
        await trio.to_thread.run_sync(self._make, record, hostname, shm_bytes or _SHM_BYTES, label)

    def _make(self, record: SandboxRecord, hostname: str, shm_bytes: int, label: str) -> None:
        directory = self._layout.pod(record.id)
        make_private(directory, record.config.namespaces.userns)
        (directory / "ns").mkdir(exist_ok=True)
        config = record.config
        dns = config.dns
        if dns is not None and (dns.servers or dns.searches or dns.options):
            text = resolv_conf(dns)
        else:
            text = _RESOLV_CONF.read_text(errors="replace") if _RESOLV_CONF.exists() else ""
        _publish(directory / "resolv.conf", text, label)
        _publish(directory / "hostname", f"{hostname}\n", label)
        if config.namespaces.ipc is not NamespaceMode.NODE:
            self._mount_shm(directory / "shm", config.namespaces.userns, shm_bytes, label)

    def _mount_shm(self, target: Path, userns: UserNamespace | None, size_bytes: int, label: str) -> None:
        target.mkdir(exist_ok=True)
        if mounts.is_mountpoint(target):
            return
        options = f"mode=1777,size={size_bytes}"
        if userns is not None and userns.mode is NamespaceMode.POD and userns.uids:
            options += f",uid={root_of(userns.uids)},gid={root_of(userns.gids)}"
        if label:
            options += f',context="{label}"'
        flags = mounts.MS_NOEXEC | mounts.MS_NOSUID | mounts.MS_NODEV
        mounts.mount("shm", target, "tmpfs", flags, options)

    async def write_hosts(
        self, record: SandboxRecord, ips: tuple[str, ...], hostname: str, *, label: str = ""
    ) -> None:
        """Write the hosts file, once the pod's addresses are known."""
        text = hosts(ips, hostname)
        if record.config.host_network and await trio.Path(_HOSTS).exists():
            text = await trio.Path(_HOSTS).read_text(errors="replace")
        await trio.lowlevel.checkpoint()
        # On a tmpfs, and some lines long: a thread would cost more than the write.
        _publish(self._layout.pod(record.id) / "hosts", text, label)

    async def remove(self, sandbox_id: str) -> None:
        """Unmount and delete everything of the pod. Idempotent."""
        await trio.to_thread.run_sync(self._remove, sandbox_id)

    def _remove(self, sandbox_id: str) -> None:
        directory = self._layout.pod(sandbox_id)
        mounts.unmount(directory / "shm")
        files.remove_tree(directory)


def _publish(path: Path, text: str, label: str) -> None:
    files.publish(path, text.encode(), 0o644, durable=False)
    if label:
        relabel_tree(path, label, lambda: None)


def make_private(directory: Path, userns: UserNamespace | None) -> None:
    """Make a directory that no user of the host may enter: below it are other people's set-id programs.

    The root of a pod's user namespace may pass, since the runtime does so under its identity.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if userns is not None and userns.mode is NamespaceMode.POD and userns.gids:
        os.chown(directory, 0, root_of(userns.gids))
        directory.chmod(0o710)
    else:
        directory.chmod(0o700)


def root_of(mappings: tuple[IDMapping, ...]) -> int:
    """The host id of the namespace's root."""
    return next((mapping.host_id for mapping in mappings if mapping.container_id == 0), 0)


def effective_hostname(config: PodConfig, host_name: str) -> str:
    """What `hostname` prints in the pod: its own, or the node's with host networking."""
    return host_name if config.host_network and not config.hostname else config.hostname
