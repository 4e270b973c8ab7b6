"""What NRI plugins wanted of a container, kept in its bundle: they cannot be asked again to explain it."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

from noded.host import files
from noded.proto.nri.pkg.api.v1alpha1 import Container, ContainerAdjustment, CreateContainerResponse

Inject = Callable[[Mapping[str, Any], Sequence[str]], Awaitable[Mapping[str, Any]]]

_NAME = "nri.json"


async def keep(bundle: Path, adjustments: Sequence[tuple[str, ContainerAdjustment]]) -> None:
    """Write down pairs of (plugin, adjustment). The file goes with the bundle."""
    text = json.dumps([[plugin, base64.b64encode(bytes(adjust)).decode()] for plugin, adjust in adjustments])
    publish = partial(files.publish, bundle / _NAME, text.encode(), 0o600, durable=False)
    await trio.to_thread.run_sync(publish)


async def kept(bundle: Path) -> list[tuple[str, ContainerAdjustment]]:
    """Read it back; nothing when no plugin has adjusted the container."""
    try:
        text = await trio.Path(bundle / _NAME).read_text()
    except FileNotFoundError:
        return []
    return [(plugin, ContainerAdjustment.parse(base64.b64decode(data))) for plugin, data in json.loads(text)]


async def replayed(
    bundle: Path,
    shown: Callable[[], Container],
    spec: dict[str, Any],
    inject: Inject,
    *,
    swap_accounting: bool,
) -> list[tuple[str, dict[str, Any]]]:
    """What the plugins have made of a container's spec: (plugin, the spec after it), in their order.

    Args:
        shown: makes the container as the first plugin saw it.
        inject: puts CDI devices, given by their names, into a spec.
    """
    adjustments = await kept(bundle)
    if not adjustments:
        return []
    from noded.nri.adjust import adjusted
    from noded.nri.merge import Creation

    found = []
    for count in range(1, len(adjustments) + 1):
        creation = Creation(shown())
        for plugin, adjust in adjustments[:count]:
            creation.add(plugin, CreateContainerResponse(adjust=adjust))
        after = dict(await inject(spec, [device.name for device in creation.adjust.CDI_devices]))
        found.append(
            (adjustments[count - 1][0], adjusted(after, creation.adjust, swap_accounting=swap_accounting))
        )
    return found
