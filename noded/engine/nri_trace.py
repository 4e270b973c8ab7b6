"""What NRI plugins wanted of a container, kept in its bundle: they cannot be asked again to explain it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import trio

from noded.host import files
from noded.proto.nri.pkg.api.v1alpha1 import ContainerAdjustment

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
