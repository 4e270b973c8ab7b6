"""What is done from time to time, whatever clients ask for. None of it ends the daemon."""

from __future__ import annotations

import structlog
import trio

from noded.engine.backoff import local_delays
from noded.engine.registry import Registry
from noded.images.library import Library
from noded.model.runtime import RuntimeHost
from noded.network.network import Network
from noded.plugins import Hooks

log = structlog.get_logger(__name__)


async def free_owed_bytes(library: Library) -> None:
    """Free what a failed deletion left, as soon as that can be done. Runs until cancelled."""
    while True:
        await library.owed.wait()
        for delay in local_delays():
            await trio.sleep(delay)
            try:
                await library.collect()
                break
            except Exception as error:
                log.warning("not all bytes of images are freed yet", error=str(error))


async def collect_networks(
    network: Network, registry: Registry, period_seconds: float, ready: trio.Event
) -> None:
    """Let CNI plugins free what belongs to no sandbox (CNI 1.1 GC). Runs until cancelled.

    Args:
        period_seconds: 0 = never.
        ready: set when the registry is complete.
    """
    await ready.wait()
    while period_seconds > 0:
        await trio.sleep(period_seconds)
        try:
            await network.gc(one for sandbox in registry.sandboxes() for one in sandbox.record.attachments)
        except Exception as error:
            log.warning("CNI garbage collection failed, tried again later", error=str(error))


async def tell_findings(hooks: Hooks, host: RuntimeHost) -> None:
    """Log once what plugins find missing on this node."""
    for distribution, finding in await hooks.diagnose(host):
        if not finding.ok:
            log.warning(
                "a plugin is not content with this node",
                distribution=distribution,
                subject=finding.subject,
                detail=finding.detail,
            )
