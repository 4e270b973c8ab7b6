"""What a runtime's `restore` wants in config.json beyond what the container has."""

from __future__ import annotations

import json
from pathlib import Path

from noded.host.files import publish
from noded.runtimes.records import CONFIG_FILE


def name_masked_directories(bundle: Path, name: str, source: Path) -> None:
    """Tell `restore` where to mount masked directories from that a checkpoint knows as `name`.

    crun mounts one empty directory over every masked one, and names it in checkpoints by the state
    directory that it has without `--root`, but looks for it by that of `--root` (criu.c of 1.28). The
    source of a bind mount is what it gives CRIU for the mount's destination. Nothing is mounted
    at `name`; `restore` makes an empty directory there. Idempotent.

    Raises: OSError, ValueError.
    """
    path = bundle / CONFIG_FILE
    spec = json.loads(path.read_bytes())
    mounts = spec.get("mounts", [])
    if any(mount["destination"] == name for mount in mounts):
        return
    source.mkdir(mode=0o555, parents=True, exist_ok=True)
    added = {"destination": name, "type": "bind", "source": str(source), "options": ["bind", "ro"]}
    publish(path, json.dumps({**spec, "mounts": [*mounts, added]}).encode(), 0o600, durable=False)
