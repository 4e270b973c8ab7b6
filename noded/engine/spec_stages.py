"""Who changes a spec after it was built, for explanations: CDI devices, hook files, plugins."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from noded.engine.hook_directories import HookDirectories
from noded.errors import NodedError
from noded.model.container import ContainerConfig
from noded.model.extension import Edit
from noded.model.pod import PodConfig
from noded.plugins.edits import apply_edits
from noded.spec.cdi.names import requested_devices
from noded.spec.explain.sources import Kind, Source

Stage = tuple[Source, Mapping[str, Any]]  # who it was, and the whole spec after that


@dataclass(frozen=True, slots=True)
class Changers:
    """Those who change specs.

    Args:
        inject: the spec with CDI devices in it.
        file_of: the file that describes a CDI device, as last read.
        wanted_edits: pairs of (distribution, edit) that plugins want of a spec.
    """

    inject: Callable[[Mapping[str, Any], Sequence[str]], Awaitable[Mapping[str, Any]]]
    file_of: Callable[[str], str]
    hook_directories: HookDirectories
    wanted_edits: Callable[[Mapping[str, Any]], Awaitable[list[tuple[str, Edit]]]]


async def stages(
    spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, changers: Changers, notes: list[str]
) -> list[Stage]:
    """What each of them makes of the spec. One that fails is noted, and left out.

    Cancellation: safe, nothing is changed.
    """
    found: list[Stage] = []
    for name, of_one_kind in (("CDI devices", _cdi), ("hook files", _hooks), ("plugins", _plugins)):
        try:
            found += await of_one_kind(found[-1][1] if found else spec, pod, container, changers)
        except NodedError as error:
            notes.append(f"what {name} change cannot be shown: {error}")
    return found


async def _cdi(
    spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, changers: Changers
) -> list[Stage]:
    found: list[Stage] = []
    named: list[str] = []
    for device in requested_devices(container):
        named.append(device)
        after = await changers.inject(spec, named)
        found.append((Source(Kind.CDI, device, changers.file_of(device)), after))
    return found


async def _hooks(
    spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, changers: Changers
) -> list[Stage]:
    steps = await changers.hook_directories.steps(spec, pod, container)
    return [(Source(Kind.HOOKS, path), after) for path, after in steps]


async def _plugins(
    spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig, changers: Changers
) -> list[Stage]:
    edits = await changers.wanted_edits(spec)
    return [
        (Source(Kind.PLUGIN, edits[count][0]), apply_edits(spec, edits[: count + 1]))
        for count in range(len(edits))
    ]
