"""Gives a container the CDI devices that its request, or a plugin, names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.engine.devices import device_at
from noded.errors import FailedPrecondition
from noded.host.parsed_files import ParsedFile, ParsedFiles
from noded.model.runtime import RuntimeFeatures
from noded.spec.cdi.catalogue import Catalogue, CdiFile
from noded.spec.cdi.document import CdiSpec, parse_document
from noded.spec.cdi.edits import ContainerEdits, DeviceNode, apply_edits
from noded.spec.inputs import ResolvedDevice
from noded.spec.version import at_least

log = structlog.get_logger(__name__)

_NET_DEVICES_SINCE = "1.3.0"  # runtime-spec, linux.netDevices; older runtimes pass over it in silence
_RESCTRL = "/sys/fs/resctrl/schemata"


class CdiDevices:
    """The devices of the node's CDI files.

    Args:
        directories: in order of rising priority.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._files = ParsedFiles(directories, "cdi_spec_dirs", (".json", ".yaml"), parse_document)
        self._one_reader = trio.Lock()
        self._seen: tuple[ParsedFile[CdiSpec], ...] = ()
        self._catalogue = Catalogue(())

    async def apply(
        self, spec: Mapping[str, Any], devices: Sequence[str], features: RuntimeFeatures
    ) -> Mapping[str, Any]:
        """Return the spec with what these devices add; the given one stays as it is.

        Args:
            devices: whole names, `VENDOR/CLASS=NAME`.
            features: of the runtime that will read the spec.

        Raises: FailedPrecondition naming devices that no file describes, files that cannot be used,
        device nodes that the node lacks.
        Cancellation: safe, nothing is changed.
        """
        if not devices:
            return spec
        async with self._one_reader:
            edits, nodes = await trio.to_thread.run_sync(self._resolve, devices)
        _check(edits, features)
        return apply_edits(spec, edits, nodes)

    def file_of(self, device: str) -> str:
        """The CDI file that describes a device, as last read; "" when none does."""
        return self._catalogue.file_of(device)

    def _resolve(self, devices: Iterable[str]) -> tuple[ContainerEdits, dict[str, ResolvedDevice]]:
        files = self._files.read()
        if files is not self._seen:
            self._seen = files
            self._catalogue = Catalogue(
                CdiFile(file.path, file.priority, file.value, file.problem) for file in files
            )
            for subject, problem in self._catalogue.problems.items():
                log.warning("CDI file or device unusable", subject=subject, detail=problem)
        edits = self._catalogue.edits(devices)
        nodes = {node.host_path: _host_node(node) for node in edits.device_nodes if not node.complete}
        return edits, nodes


def _host_node(node: DeviceNode) -> ResolvedDevice:
    found = device_at(node.host_path, f"CDI device node {node.host_path}")
    wanted = "c" if node.type == "u" else node.type
    if wanted and wanted != found.type:
        raise FailedPrecondition(
            f"CDI device node {node.host_path} is of type {found.type!r}, its CDI file says {node.type!r}"
        )
    return found


def _check(edits: ContainerEdits, features: RuntimeFeatures) -> None:
    if edits.net_devices and not at_least(features.highest_oci_version, _NET_DEVICES_SINCE):
        raise FailedPrecondition(
            f"CDI netDevices need a runtime of runtime-spec {_NET_DEVICES_SINCE}, this handler's knows "
            f"{features.highest_oci_version}: choose another RuntimeClass"
        )
    if edits.intel_rdt and not os.path.exists(_RESCTRL):
        raise FailedPrecondition(
            "CDI intelRdt needs the resctrl file system, which this node has not mounted at /sys/fs/resctrl"
        )
