"""Reads the facts of this node. Decides nothing; blocks; never raises for what is wrong on the node."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from os import geteuid
from pathlib import Path

from noded.checks.facts import Facts
from noded.checks.gather import documents, kernel, kubelet, network, node, programs, storage
from noded.config import Config


def collect(config: Config, kubelet_config: Path | None = None) -> Facts:
    """Read everything but what plugins and a running daemon tell.

    Args:
        kubelet_config: kubelet's configuration file, None = where kubelet says, or kubeadm puts it.
    """
    return Facts(
        root_user=geteuid() == 0,
        program_version=version("noded"),
        kernel=kernel.read(),
        cgroups=kernel.cgroups(config),
        root=storage.look("root", config.root, trial=geteuid() == 0),
        images=storage.look("images.root", config.images.root, trial=False) if config.images.root else None,
        state=storage.look("state", config.state, trial=False),
        security=kernel.security(),
        programs=tuple(programs.look(name) for name in (config.conmon, config.init)),
        network=network.look(config.network),
        limits=replace(node.limits(config.listen), sysctls=node.limit_sysctls()),
        kubelet=kubelet.look(kubelet_config),
        documents=documents.look(config.images),
        rivals=node.rivals(config.listen),
        daemon=node.socket_facts(config.listen),
        swap_bytes=node.swap_bytes(),
        clock_synchronized=node.clock_synchronized(),
    )
