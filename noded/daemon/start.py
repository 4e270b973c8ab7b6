"""The start of the daemon, up to the moment when somebody listens.

Order: configuration files, lock on the root directory, socket, lists from the database; then, in a
thread, the import of everything else (`noded.daemon.run`), which takes several times as long. So what is
imported here is little: no trio, no structlog, no message classes, no classes of the configuration. A
test says which.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from noded import tables
from noded.edge import early
from noded.edge.server import Server
from noded.errors import Internal, NodedError
from noded.host import sockets
from noded.host.boot import boot_id
from noded.host.lock import lock
from noded.model import paths
from noded.store.glance import glance

if TYPE_CHECKING:
    import sqlite3

    from noded.config import Config
    from noded.store.glance import Glance
    from noded.tables import Located

# A client that waits in the socket's queue is heard before the interpreter is taken for the import.
_GRACE_SECONDS = 0.05
# While modules are imported, a call that can be answered waits for the interpreter no longer than this.
_SWITCH_SECONDS = 0.0005
_YOUNG_OBJECTS = 3000
_NEVER = 10_000, 10_000


class Places(NamedTuple):
    """The part of the configuration that is needed first."""

    root: Path
    state: Path
    listen: Path
    listen_group: str


class Front(NamedTuple):
    """What listens already.

    Args:
        socket: its path.
        problem: how an inherited socket differs from the configuration, "" = not at all.
        database: open already, for the core to take over; None when it could not be read.
    """

    server: Server
    socket: Path
    problem: str
    database: sqlite3.Connection | None


def main(config_path: Path | None) -> int:
    """Run the daemon until it is told to stop; return the exit status.

    Args:
        config_path: configuration file, None for the default one.

    Raises: NodedError when it cannot start, with what to do about it.
    """
    # The rest makes more of it; until then it must not end the start.
    signal.signal(signal.SIGUSR1, lambda *_: faulthandler.dump_traceback())
    return asyncio.run(_run(tables.read(config_path), config_path))


async def _run(table: Located, config_path: Path | None) -> int:
    async with _front(_places(table)) as front:
        await front.server.heard(_GRACE_SECONDS)
        run, config = await _rest(table)
        status: int = await run.Daemon(config, config_path, front).run()
        return status


def _places(table: Located) -> Places:
    """Raises: InvalidArgument."""
    group = table.get("listen_group", "")
    if not isinstance(group, str):
        raise _refusal(table)
    return Places(
        root=_path(table, "root", paths.ROOT),
        state=_path(table, "state", paths.STATE),
        listen=_path(table, "listen", paths.SOCKET),
        listen_group=group,
    )


def _path(table: Located, key: str, default: Path) -> Path:
    value = table.get(key, str(default))
    if not isinstance(value, str) or not value.startswith("/"):
        raise _refusal(table)
    return Path(value)


def _refusal(table: Located) -> NodedError:
    """What the whole check says of a table that is wrong."""
    from noded import settings

    try:
        settings.interpret(table)
    except NodedError as error:
        return error
    return Internal("noded does not understand its own configuration")


@asynccontextmanager
async def _front(config: Places) -> AsyncIterator[Front]:
    config.root.mkdir(parents=True, exist_ok=True, mode=0o711)
    with lock(config.root / "noded.lock"):
        listener = sockets.inherited(os.environ)
        served, problem, made = config.listen, "", listener is None
        if listener is None:
            listener = sockets.bind(config.listen, config.listen_group)
        elif problem := sockets.difference(listener, config.listen, config.listen_group):
            served = Path(os.fsdecode(listener.getsockname()))
        opened = glance(paths.Layout(config.root, config.state).database)
        server = Server(_known(opened.seen) if opened and opened.seen else {})
        try:
            await server.start(listener)
            yield Front(server, served, problem, opened.connection if opened else None)
        finally:
            await server.drain(0.0)
            if made:
                sockets.unlink(config.listen)


def _known(seen: Glance) -> dict[str, bytes]:
    """Lists as the database has them, none when it cannot be understood: then they wait for the core."""
    try:
        return early.answers(seen, boot_id())
    except (ValueError, OSError):
        return {}


async def _rest(table: Located) -> tuple[ModuleType, Config]:
    """The module with the rest of the daemon, and the configuration. Raises: InvalidArgument."""
    from noded.host.memory import one_arena

    one_arena()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    # What is imported becomes garbage young or never; `run` looks at all of it once, at the end.
    thresholds = gc.get_threshold()
    gc.set_threshold(_YOUNG_OBJECTS, *_NEVER)
    try:
        return await asyncio.to_thread(_import, table)
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)


def _import(table: Located) -> tuple[ModuleType, Config]:
    from noded import settings

    config = settings.interpret(table)
    with _without("rich"):
        from noded.daemon import run

    return run, config


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports find no such module: structlog takes rich for tracebacks, at 3 MB and 50 ms of start."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment] # documented in importlib: import fails
    try:
        yield
    finally:
        del sys.modules[module]
