"""Finds what the classes mean that annotations of a pod choose for block I/O and RDT."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import trio

from noded.config import Config
from noded.engine.spec_files import read_text
from noded.errors import FailedPrecondition, InvalidArgument
from noded.host import block_devices
from noded.model.host import HostFacts
from noded.spec.classes import block_io, class_of, parse_blockio, parse_rdt

_RESCTRL = Path("/sys/fs/resctrl")


async def blockio_of(
    config: Config, facts: HostFacts, annotations: Mapping[str, str], container: str
) -> Mapping[str, Any] | None:
    """`linux.resources.blockIO` of a container, None without a class.

    Raises: FailedPrecondition naming the annotation and what the node lacks. Cancellation: safe.
    """
    chosen = class_of("blockio", annotations, container)
    if chosen is None:
        return None
    key, name = chosen
    classes = await _read(key, "blockio_config_file", config.blockio_config_file, parse_blockio)
    if name not in classes:
        raise FailedPrecondition(f"annotation {key}: {_unknown(name, classes)}")
    if not {"io", "blkio"} & facts.cgroup_controllers:
        raise FailedPrecondition(f"annotation {key}: this node has no cgroup controller for block I/O")
    return await trio.to_thread.run_sync(partial(block_io, classes[name], block_devices.find))


async def rdt_of(config: Config, annotations: Mapping[str, str], container: str) -> str:
    """The RDT class of a container, a directory of resctrl; "" = none. Raises: as `blockio_of`."""
    chosen = class_of("rdt", annotations, container)
    if chosen is None:
        return ""
    key, name = chosen
    classes = await _read(key, "rdt_config_file", config.rdt_config_file, parse_rdt)
    if name not in classes:
        raise FailedPrecondition(f"annotation {key}: {_unknown(name, classes)}")
    if not await trio.Path(_RESCTRL / "schemata").exists():
        raise FailedPrecondition(f"annotation {key}: this node has no RDT, or {_RESCTRL} is not mounted")
    if "/" in name or not await trio.Path(_RESCTRL / name / "schemata").exists():
        raise FailedPrecondition(
            f"annotation {key}: {_RESCTRL / name} does not exist: make the group, noded does not"
        )
    return name


async def _read(key: str, setting: str, file: Path | None, parse: Any) -> Any:
    if file is None:
        raise FailedPrecondition(f"annotation {key}: this node has no such classes, set {setting}")
    try:
        return parse(await read_text(file))
    except InvalidArgument as error:
        raise FailedPrecondition(f"{setting}: {file}: {error}") from None


def _unknown(name: str, classes: Any) -> str:
    return f"there is no class {name!r}, but {', '.join(sorted(classes)) or 'none'}"
