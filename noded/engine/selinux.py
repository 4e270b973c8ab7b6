"""The SELinux contexts of this node's pods and containers.

Nothing here does anything on a node without SELinux, nor for a pod that was made while it was off.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path

import structlog
import trio

from noded.config import Config
from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import lsm
from noded.host.relabel import check_relabel, relabel_tree
from noded.model.container import ContainerSecurity
from noded.model.host import HostFacts
from noded.model.pod import PodConfig
from noded.model.records import SandboxRecord
from noded.model.runtime import RuntimeFeatures
from noded.spec.inputs import ImageVolume, ResolvedMount
from noded.spec.selinux import (
    Contexts,
    Labels,
    container_labels,
    infra_labels,
    parse_contexts,
    parse_policy_name,
    pod_level,
)

log = structlog.get_logger(__name__)

_NONE = Labels()


class SELinux:
    """Decides about contexts. Making one reads the policy's files: blocks for some milliseconds."""

    def __init__(self, config: Config, facts: HostFacts) -> None:
        self._categories = config.selinux_categories
        self._host_network_unseparated = config.hostnetwork_disable_selinux
        self._enabled = facts.selinux
        self._labels_new_pods = facts.selinux and config.enable_selinux
        self._contexts: Contexts | None = None
        self._problem = ""
        if self._enabled:
            self._read()

    def _read(self) -> None:
        path, text = lsm.selinux_container_contexts(parse_policy_name(lsm.selinux_policy_config()))
        try:
            self._contexts = parse_contexts(text)
        except InvalidArgument as error:
            self._problem = f"{path}: {error}" if text else f"{path} is missing or empty"
            if self._labels_new_pods:
                log.error("pods cannot be labelled", reason=self._problem)

    def level(self, pod: PodConfig, taken: Callable[[], Collection[str]]) -> str:
        """The level of a new pod, "" on a node without SELinux, whatever the pod asks for, as in both peers.

        Args:
            taken: gives the levels of the pods that exist.

        Raises: InvalidArgument naming the field, FailedPrecondition without a container policy.
        """
        if not self._labels_new_pods:
            if pod.security.selinux is not None:
                log.debug("selinux_options without effect", pod=str(pod.key), reason="SELinux is not used")
            return ""
        self._known()
        return pod_level(pod.security.selinux, taken(), self._categories, secrets.randbelow)

    def of_pod(self, record: SandboxRecord, features: RuntimeFeatures | None = None) -> Labels:
        """What the pod's init and its files get. Raises: as `level`."""
        if not self._used(record):
            return _NONE
        return infra_labels(
            self._known(),
            record.selinux_level,
            record.config,
            host_network_unseparated=self._host_network_unseparated,
            virtual_machine=features is not None and features.virtual_machine,
        )

    async def of_container(
        self, record: SandboxRecord, security: ContainerSecurity, features: RuntimeFeatures
    ) -> Labels:
        """What a container of the pod gets, checked with the loaded policy.

        Raises: InvalidArgument naming the field, FailedPrecondition without a container policy.
        Cancellation: safe.
        """
        if not self._used(record):
            return _NONE
        labels = container_labels(
            self._known(),
            record.selinux_level,
            record.config,
            security,
            host_network_unseparated=self._host_network_unseparated,
            virtual_machine=features.virtual_machine,
        )
        await self.check(labels)
        return labels

    async def check(self, labels: Labels) -> None:
        """Ask the loaded policy. Raises: InvalidArgument naming the field. Cancellation: safe."""
        try:
            for context in filter(None, (labels.process, labels.mount)):
                await trio.to_thread.run_sync(lsm.check_selinux_context, context)
        except InvalidArgument as error:
            raise InvalidArgument(f"config.linux.security_context.selinux_options: {error}") from None

    async def label_own(self, bundle: Path, volumes: Sequence[ImageVolume], labels: Labels) -> None:
        """Label what noded made for a container: directories of the image's VOLUMEs, files of FIPS mode."""
        if not labels.mount:
            return
        made = [bundle / name for name in ("system-fips", "fips-disabled")]
        for path in (*filter(Path.exists, made), *(Path(volume.source) for volume in volumes)):
            await _relabel(path, labels.mount)

    def _used(self, record: SandboxRecord) -> bool:
        return self._enabled and bool(record.selinux_level)

    def _known(self) -> Contexts:
        if self._contexts is None:
            raise FailedPrecondition(
                f"this node has SELinux but no policy for containers ({self._problem}): install "
                "container-selinux, or set enable_selinux = false"
            )
        return self._contexts


async def relabel_mounts(mounts: Sequence[ResolvedMount], labels: Labels) -> None:
    """Give the pod's own context to the sources of mounts that ask for it.

    Raises: FailedPrecondition for a directory of the node itself; others by errno, naming the path.
    Cancellation: between two directories of the tree; what was labelled stays so.
    """
    if not labels.mount or not labels.relabel:
        return
    for index, resolved in enumerate(mounts):
        if not resolved.mount.selinux_relabel or resolved.mount.image:
            continue
        try:
            check_relabel(resolved.source)
        except FailedPrecondition as error:
            raise FailedPrecondition(f"mounts[{index}]: {error}") from None
        await _relabel(Path(resolved.source), labels.mount)


async def _relabel(path: Path, label: str) -> None:
    changed = await trio.to_thread.run_sync(
        partial(relabel_tree, path, label, trio.from_thread.check_cancelled)
    )
    log.debug("relabelled", path=str(path), context=label, files=changed)
