"""Registry credentials for the pods of one Kubernetes namespace: files in a directory.

    NAMESPACE.json            for all its pulls
    NAMESPACE-SHA256.json     handed over for a pull of one repository (SHA256 of `host/path`)

Both are as containers-auth.json(5) says. The second is what CRI-O's credential provider for the kubelet
leaves just before it asks for the pull, so that a namespace's pull secrets count at mirrors, too.

A file that was handed over is taken, read and removed at once, by the call that it precedes. So the end
of one pull never removes what was left for the next, and no secret stays behind when a pull is killed. Its
name says who may use it: the pulls of this repository for this namespace. When several run, the file of the
later may have replaced that of the earlier one before either was read; so a call that finds none goes by the
newest that another one brought which still runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
import trio

from noded.images.auth import RawAuthFile, read_open, unreadable
from noded.images.namespace_files import is_namespace, namespace_file
from noded.wire.reference import Reference

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Held:
    """What was handed over last for one repository, while somebody pulls from it."""

    calls: int = 0
    newest: RawAuthFile | None = None


class NamespaceLogins:
    """The files of one directory, None = none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory
        self._held: dict[Path, _Held] = {}
        self._taking = trio.Lock()

    def files(self, namespace: str) -> Sequence[Path]:
        """Where the lasting credentials of a namespace may be.

        Args:
            namespace: "" if the pull is for no pod; then there are none.

        Raises: InvalidArgument for what is no name of a namespace.
        """
        if self._directory is None or not namespace:
            return ()
        return (namespace_file(self._directory, namespace),)

    @asynccontextmanager
    async def handed_over(
        self, namespace: str, names: Sequence[Reference]
    ) -> AsyncIterator[tuple[RawAuthFile | None, ...]]:
        """Take what was left for one call; one item per name. Within it, others may go by that, too.

        Raises: InvalidArgument for a file that cannot be read.
        Cancellation: safe.
        """
        if self._directory is None or not is_namespace(namespace):  # a pull for what is none is refused later
            yield (None,) * len(names)
            return
        paths = [_handed_over(self._directory, namespace, name) for name in names]
        for path in paths:
            self._held.setdefault(path, _Held()).calls += 1
        try:
            async with self._taking:
                for path in dict.fromkeys(paths):
                    held = self._held[path]
                    held.newest = await trio.to_thread.run_sync(_take, path) or held.newest
            yield tuple(self._held[path].newest for path in paths)
        finally:
            for path in paths:
                self._held[path].calls -= 1
                if not self._held[path].calls:
                    del self._held[path]


def _take(path: Path) -> RawAuthFile | None:
    try:
        with path.open("rb") as stream:
            try:
                path.unlink(
                    missing_ok=True
                )  # before it is read: what comes there from now on is the next one
            except OSError as error:
                log.warning("used credential not removed", path=str(path), error=error.strerror)
            return read_open(stream, path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def _handed_over(directory: Path, namespace: str, name: Reference) -> Path:
    digest = hashlib.sha256(name.repository.encode()).hexdigest()
    return namespace_file(directory, namespace, f"-{digest}.json")
