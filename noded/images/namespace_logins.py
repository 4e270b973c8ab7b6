"""Registry credentials for the pods of one Kubernetes namespace: files in a directory.

    NAMESPACE.json            for all its pulls
    NAMESPACE-SHA256.json     for one pull of one repository (SHA256 of `host/path`), then removed

Both are as containers-auth.json(5) says. The second is what CRI-O's credential provider for the kubelet
leaves, so that a namespace's pull secrets count at mirrors, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import structlog
import trio

from noded.errors import InvalidArgument
from noded.images.namespace_files import namespace_file
from noded.wire.reference import Reference

log = structlog.get_logger(__name__)


class NamespaceLogins:
    """The files of one directory, None = none."""

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    def files(self, namespace: str, name: Reference) -> Sequence[Path]:
        """Where the credentials of a namespace for an image may be, in the order of precedence.

        Args:
            namespace: "" if the pull is for no pod; then there are none.

        Raises: InvalidArgument for what is no name of a namespace.
        """
        if self._directory is None or not namespace:
            return ()
        return (
            _once(self._directory, namespace, name),
            namespace_file(self._directory, namespace),
        )

    async def pulled(self, namespace: str, name: Reference) -> None:
        """Remove the credential for this one pull, whatever came of it: the next pull brings a new one."""
        if self._directory is None or not namespace:
            return
        try:
            path = _once(self._directory, namespace, name)
        except InvalidArgument:  # it had no files
            return
        try:
            await trio.to_thread.run_sync(lambda: path.unlink(missing_ok=True))
        except OSError as error:
            log.warning("used credential not removed", path=str(path), error=error.strerror)


def _once(directory: Path, namespace: str, name: Reference) -> Path:
    digest = hashlib.sha256(name.repository.encode()).hexdigest()
    return namespace_file(directory, namespace, f"-{digest}.json")
