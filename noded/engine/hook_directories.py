"""Adds the hooks of the node's administrator to a container's spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.host.parsed_files import ParsedFile, ParsedFiles
from noded.model.container import ContainerConfig
from noded.model.pod import PodConfig
from noded.spec.hooks import ConfiguredHook, hook_order, parse_hook, with_hooks

log = structlog.get_logger(__name__)


class HookDirectories:
    """OCI hooks of the configured directories, looked at for each container.

    Args:
        directories: in order of rising priority.
    """

    def __init__(self, directories: Sequence[Path]) -> None:
        self._files = ParsedFiles(directories, "hooks_dirs", (".json",), parse_hook)
        self._one_reader = trio.Lock()
        self._seen: tuple[ParsedFile[ConfiguredHook], ...] = ()

    async def steps(
        self, spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig
    ) -> list[tuple[str, Mapping[str, Any]]]:
        """What each file adds: (path, the spec with this file's hooks and those before it), in order.

        Raises: as `apply`. Cancellation: safe.
        """
        found: list[tuple[str, Mapping[str, Any]]] = []
        async with self._one_reader:
            files = await trio.to_thread.run_sync(self._files.read)
        names = sorted({file.path.rpartition("/")[2] for file in files}, key=hook_order)
        before = spec
        for count in range(1, len(names) + 1):
            chosen = [file for file in files if file.path.rpartition("/")[2] in names[:count]]
            after = _with(spec, chosen, pod, container)
            if after != before:
                last = [file for file in chosen if file.path.rpartition("/")[2] == names[count - 1]]
                found.append((max(last, key=lambda file: file.priority).path, after))
            before = after
        return found

    async def apply(
        self, spec: Mapping[str, Any], pod: PodConfig, container: ContainerConfig
    ) -> Mapping[str, Any]:
        """Return the spec with the hooks that are meant for this container.

        A file that cannot be used is logged once and left out: one mistake must not stop a node.

        Raises: FailedPrecondition when a directory cannot be read.
        Cancellation: safe, nothing is changed.
        """
        if self._files.still_empty():
            return spec
        async with self._one_reader:
            files = await trio.to_thread.run_sync(self._files.read)
        if files is not self._seen:
            self._seen = files
            for file in files:
                if file.value is None:
                    log.error("OCI hook file unusable, not run", path=file.path, detail=file.problem)
        if not files:
            return spec
        return _with(spec, files, pod, container)


def _with(
    spec: Mapping[str, Any],
    files: Sequence[ParsedFile[ConfiguredHook]],
    pod: PodConfig,
    container: ContainerConfig,
) -> Mapping[str, Any]:
    return with_hooks(
        spec,
        [(file.path, file.priority, file.value) for file in files],
        {**container.annotations, **pod.annotations},
        has_mounts=bool(container.mounts),
    )
