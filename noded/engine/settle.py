"""The second half of a start: memory and node are brought together, then changes are allowed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from noded.engine.handlers import Handlers
from noded.engine.recover import Recovery
from noded.images.library import Library
from noded.images.repair import Repairer
from noded.images.stores import AdditionalStores

log = structlog.get_logger(__name__)


async def settle(
    *,
    handlers: Handlers,
    recovery: Recovery,
    serve_nri: Callable[[], Awaitable[None]] | None,
    library: Library,
    stores: AdditionalStores,
    repairer: Repairer,
    crashed: bool,
    ready: trio.Event,
) -> None:
    """Do what records ask for, set `ready`, then put the image store in order.

    Args:
        serve_nri: lets NRI plugins in; the installed ones see every change that is asked for.
        crashed: the node lost power, or crashed, while the daemon ran.
    """
    await handlers.probe()
    await recovery.settle()
    if serve_nri is not None:
        await serve_nri()
    await stores.begun()
    ready.set()
    log.info("ready")
    steps: list[Callable[[], Awaitable[object]]] = [library.collect]
    if crashed:
        steps.append(repairer.after_crash)
    for step in (*steps, repairer.repair_all):
        try:
            await step()
        except Exception:  # none of it is worth the daemon: it is tried again, or done by the next start
            log.exception("the image store was not put in order")
    log.info("image store in order")
