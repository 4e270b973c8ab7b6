"""CheckpointContainer: a running container's processes and files in an archive; it lives on.

The container is frozen from the first page saved to the last file, so that both belong together. A mark
in its bundle says that it is: a daemon that dies meanwhile is followed by one that lets it go on.

    container data/checkpoint/   the archive's files, while it is made
    bundle/checkpointing         the container may be frozen
"""

from __future__ import annotations

import json
import os
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder, pod_user_namespace
from noded.engine.handlers import Handlers
from noded.engine.operations import Operation, Operations
from noded.engine.registry import Registry
from noded.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
    Unimplemented,
)
from noded.host import files
from noded.images.checkpoint_archive import write_archive
from noded.images.library import Library
from noded.images.snapshots import Snapshots
from noded.model.checkpoint import (
    BIND_MOUNTS,
    CONFIG_DUMP,
    CONTAINER_LOG,
    DELETED_FILES,
    IMAGES_DIRECTORY,
    ROOTFS_DIFF,
    SPEC_DUMP,
    CheckpointConfig,
    dumped_spec,
)
from noded.model.paths import Layout
from noded.model.runtime import Sandbox
from noded.model.views import ContainerState

log = structlog.get_logger(__name__)

DEFAULT_SECONDS = 120.0  # kubelet's least, too
_MARK = "checkpointing"
_UNDO_SECONDS = 60.0


class Checkpoints:
    """Saves containers."""

    def __init__(
        self,
        *,
        enabled: bool,
        layout: Layout,
        registry: Registry,
        operations: Operations,
        handlers: Handlers,
        images: Library,
        snapshots: Snapshots,
        ladder: ContainerLadder,
    ) -> None:
        self._enabled = enabled
        self._layout = layout
        self._registry = registry
        self._operations = operations
        self._handlers = handlers
        self._images = images
        self._snapshots = snapshots
        self._ladder = ladder

    async def checkpoint(self, name: str, location: str, timeout_seconds: float) -> None:
        """Write a checkpoint archive of a running container; it goes on running.

        Args:
            location: absolute path of the archive, in a directory that exists; a file there is replaced.
            timeout_seconds: 0 = the default of 120 s.

        Raises: Unimplemented when the runtime cannot, InvalidArgument, NotFound, FailedPrecondition when
            the container does not run or CRIU refuses it, DeadlineExceeded; there is no archive then.
        Cancellation: the container goes on, there is no archive. Spec: CRI v1 CheckpointContainer.
        """
        if not self._enabled:
            raise Unimplemented("this node makes no checkpoints: [checkpoint] enable = false")
        target = _target(location)
        container = self._registry.container(name)
        await self._check(container)
        seconds = timeout_seconds or DEFAULT_SECONDS
        await self._operations.join(
            ("checkpoint", container.id, target),
            f"checkpointing container {container.id[:12]}",
            partial(self._run, container, target, seconds),
        )

    async def _check(self, container: Container) -> None:
        handler = container.sandbox.record.handler
        if not (await self._handlers.features_of(handler)).checkpoint:
            raise Unimplemented(
                f"runtime handler {handler!r} cannot checkpoint containers: its runtime cannot use CRIU"
            )
        if pod_user_namespace(container.sandbox) is not None:
            raise Unimplemented("containers of a pod with a user namespace cannot be checkpointed")
        _check_running(container)

    async def _run(
        self, container: Container, target: Path, seconds: float, operation: Operation[None]
    ) -> None:
        operation.stage = lambda: container.stage
        scratch = self._layout.container_data(container.id) / "checkpoint"
        with trio.move_on_after(seconds) as scope:
            async with container.lock:
                try:
                    await trio.to_thread.run_sync(_begin, scratch)
                    await self._save(container, scratch, seconds)
                    container.stage = "writing the archive"
                    await trio.to_thread.run_sync(write_archive, scratch, target)
                finally:
                    stage, container.stage = container.stage, ""
                    with trio.CancelScope(shield=True):
                        await _discard(container, scratch)
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"checkpointing container {container.id[:12]} took longer than {seconds:g} s, at {stage}"
            )
        log.info("container checkpointed", id=container.id, archive=str(target))

    async def _save(self, container: Container, scratch: Path, seconds: float) -> None:
        _check_running(container)
        image = self._images.get(container.record.image_id)
        if image is None:
            raise FailedPrecondition(
                f"image {container.record.image_id} was removed: no checkpoint can be restored without it"
            )
        runtime = await self._ladder.sandbox_runtime(container)
        text = await trio.Path(container.ref.bundle / "config.json").read_bytes()
        spec = json.loads(text)
        mark = container.ref.bundle / _MARK
        await trio.Path(mark).touch(mode=0o600)
        try:
            container.stage = "freezing it"
            await runtime.pause(container.ref)
            saved_at_ns = time.time_ns()
            container.stage = "saving its processes"
            await runtime.checkpoint(
                container.ref, scratch / IMAGES_DIRECTORY, scratch, timeout_seconds=seconds
            )
            container.stage = "saving its files"
            deleted = await self._snapshots.write_diff(container.id, image, scratch / ROOTFS_DIFF)
        finally:
            with trio.CancelScope(shield=True):
                await _thaw(container, runtime)
        config = CheckpointConfig(
            container_id=container.id,
            name=container.record.key.name,
            image_name=container.record.config.user_specified_image or container.record.config.image,
            image_id=image.id,
            runtime=container.sandbox.record.handler,
            created_at_ns=container.record.created_at_ns,
            checkpointed_at_ns=saved_at_ns,
        )
        annotations = container.record.config.annotations
        await trio.to_thread.run_sync(
            _write_rest, scratch, config.to_json(), dumped_spec(spec, annotations), spec, deleted
        )
        if container.record.log_path:
            await trio.to_thread.run_sync(_copy_log, container.record.log_path, scratch / CONTAINER_LOG)


async def thaw(container: Container, ladder: ContainerLadder) -> None:
    """After a restart: let a container go on that an earlier daemon froze. Raises: as the runtime."""
    if (container.ref.bundle / _MARK).exists():
        log.warning("container was being checkpointed when the daemon ended", id=container.id)
        await _thaw(container, await ladder.sandbox_runtime(container))


async def _thaw(container: Container, runtime: Sandbox) -> None:
    with trio.fail_after(_UNDO_SECONDS):
        await runtime.resume(container.ref)
    (container.ref.bundle / _MARK).unlink(missing_ok=True)


async def _discard(container: Container, scratch: Path) -> None:
    try:
        await trio.to_thread.run_sync(files.remove_tree, scratch)
    except NodedError as error:  # it goes with the container, or with the next checkpoint
        log.warning("files of a checkpoint not removed yet", id=container.id, error=str(error))


def _check_running(container: Container) -> None:
    state = container.view.state
    if state is not ContainerState.RUNNING:
        raise FailedPrecondition(
            f"container {container.id[:12]} is {state.name}, only a RUNNING one can be checkpointed"
        )


def _target(location: str) -> Path:
    path = Path(location)
    if not location or not path.is_absolute() or "\0" in location or ".." in path.parts:
        raise InvalidArgument(f"location must be the absolute path of the archive, not {location!r}")
    if not path.parent.is_dir():
        raise NotFound(f"location: the directory {path.parent} does not exist")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise InvalidArgument(f"location: {path} exists and is no regular file")
    return path


def _begin(scratch: Path) -> None:
    files.remove_tree(scratch)
    scratch.mkdir(mode=0o700)  # all memory of the container will be in it
    (scratch / IMAGES_DIRECTORY).mkdir(mode=0o700)


def _write_rest(
    scratch: Path, config: bytes, dumped: bytes, spec: dict[str, Any], deleted: list[str]
) -> None:
    (scratch / CONFIG_DUMP).write_bytes(config)
    (scratch / SPEC_DUMP).write_bytes(dumped)
    if deleted:
        (scratch / DELETED_FILES).write_text(json.dumps(deleted))
    binds = [
        {
            "source": mount["source"],
            "destination": mount["destination"],
            "file_type": "directory" if os.path.isdir(mount["source"]) else "file",
            "permissions": os.stat(mount["source"]).st_mode & 0o777,
        }
        for mount in spec.get("mounts", ())
        if mount.get("type") == "bind" and os.path.exists(mount["source"])
    ]
    if binds:
        (scratch / BIND_MOUNTS).write_text(json.dumps(binds, indent=2))


def _copy_log(source: str, target: Path) -> None:
    """The log so far, where there is one: a rotation may just have moved it."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(fd, "rb") as log_file, target.open("wb") as copy:
        shutil.copyfileobj(log_file, copy)
