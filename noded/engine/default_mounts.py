"""What every container gets mounted: the administrator's files, and those of a node in FIPS mode."""

from __future__ import annotations

from pathlib import Path

import trio

from noded.engine.spec_files import read_default_mounts
from noded.host import files
from noded.host.beneath import exists_beneath, resolve_beneath
from noded.model.host import HostFacts
from noded.spec.default_mounts import FIPS_POLICIES, fips_mounts
from noded.spec.inputs import NodeMount


async def default_mounts(
    file: Path | None, facts: HostFacts, bundle: Path, rootfs: Path, *, disable_fips: bool
) -> tuple[NodeMount, ...]:
    """The mounts of one container, those of FIPS mode first. Sources that are noded's own are made.

    Args:
        file: with the administrator's mounts, None = none.
        bundle: of the container, for the sources.
        rootfs: of the container; which files of policies it has decides on the mounts.
        disable_fips: the container is not to see that the node is in FIPS mode.

    Raises: as `read_default_mounts`. Cancellation: safe.
    """
    mounts = await read_default_mounts(file) if file is not None else ()
    if not facts.fips:
        return mounts

    def fips() -> tuple[NodeMount, ...]:
        for name, data in (("system-fips", b""), ("fips-disabled", b"0\n")):
            files.publish(bundle / name, data, 0o444, durable=False)
        policies = {
            str(resolve_beneath(rootfs, source)): inside
            for source, inside in FIPS_POLICIES.items()
            if exists_beneath(rootfs, source) and exists_beneath(rootfs, inside)
        }
        empty, zero = str(bundle / "system-fips"), str(bundle / "fips-disabled")
        return fips_mounts(disabled=disable_fips, empty=empty, zero=zero, policies=policies)

    return (*await trio.to_thread.run_sync(fips), *mounts)
