"""CheckpointContainer: a running container's processes and files in an archive; it lives on.

The container is frozen, and its lock held, from the first page saved to the last file, so that both
belong together (see `thaws`). A stop of the container interrupts that. Afterwards the archive is written
from files of our own: the container may be removed meanwhile, the archive is complete all the same.

    root/checkpoints/ID/files/    the archive's files, while it is made
    root/checkpoints/ID/archive   where the archive's temporary file may be: the mark to clean up by
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.engine.container import Container
from noded.engine.container_ladder import ContainerLadder, pod_user_namespace
from noded.engine.handlers import Handlers
from noded.engine.looks import Looks
from noded.engine.operations import Operation, Operations
from noded.engine.registry import Registry
from noded.engine.thaws import Thaws, mark_frozen
from noded.errors import (
    Aborted,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NodedError,
    NotFound,
    Unimplemented,
)
from noded.host import files
from noded.images.checkpoint_archive import temporary_of, write_archive
from noded.images.interruptible import InterruptibleReader
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
from noded.model.states import ContainerState

log = structlog.get_logger(__name__)

DEFAULT_SECONDS = 120.0  # kubelet's least, too
_FILES = "files"
_MARK = "archive"
_LOOK_SECONDS = 5.0  # at a bind mount's source; what does not answer is not told of in the archive
_UNLINK_SECONDS = 10.0


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
        thaws: Thaws,
    ) -> None:
        self._enabled = enabled
        self._layout = layout
        self._registry = registry
        self._operations = operations
        self._handlers = handlers
        self._images = images
        self._snapshots = snapshots
        self._ladder = ladder
        self._thaws = thaws
        self._looks = Looks()  # not those for new mounts: whoever joins a look gets its answer

    async def checkpoint(self, name: str, location: str, timeout_seconds: float) -> None:
        """Write a checkpoint archive of a running container; it goes on running.

        Args:
            location: absolute path of the archive, in a directory that exists; a file there is replaced.
            timeout_seconds: 0 = the default of 120 s.

        Raises: Unimplemented when the runtime cannot, InvalidArgument, NotFound, FailedPrecondition when
            the container does not run or CRIU refuses it, Aborted when it is stopped meanwhile,
            DeadlineExceeded; there is no archive then.
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
        directory = self._layout.checkpoint(container.id)
        temporary = temporary_of(target, container.id)
        _at(operation, "waiting for another checkpoint of it")
        with trio.move_on_after(seconds) as scope:
            async with container.saving:
                try:
                    await trio.to_thread.run_sync(_begin, directory, temporary)
                    spec = await self._save(container, directory / _FILES, seconds, operation)
                    _at(operation, "writing the archive")
                    if log_path := container.record.log_path:
                        copy = directory / _FILES / CONTAINER_LOG
                        await trio.to_thread.run_sync(_copy_log, log_path, copy)
                    await self._add_binds(spec, directory / _FILES)
                    await trio.to_thread.run_sync(write_archive, directory / _FILES, target, temporary)
                finally:
                    with trio.CancelScope(shield=True):
                        await _discard(directory)
        if scope.cancelled_caught:
            raise DeadlineExceeded(
                f"checkpointing container {container.id[:12]} took longer than {seconds:g} s, "
                f"at {operation.stage()}"
            )
        log.info("container checkpointed", id=container.id, archive=str(target))

    async def _save(
        self, container: Container, place: Path, seconds: float, operation: Operation[None]
    ) -> dict[str, Any]:
        """Save what needs the container; return the container's OCI spec."""
        with trio.CancelScope() as freezing:
            async with container.lock:
                _check_running(container)
                container.freezing = freezing
                try:
                    return await self._save_locked(container, place, seconds, operation)
                finally:
                    container.freezing = None
                    container.stage = ""
        raise Aborted(f"container {container.id[:12]} was stopped while it was checkpointed")

    async def _save_locked(
        self, container: Container, place: Path, seconds: float, operation: Operation[None]
    ) -> dict[str, Any]:
        def at(stage: str) -> None:
            container.stage = stage
            _at(operation, stage)

        image = self._images.get(container.record.image_id)
        if image is None:
            raise FailedPrecondition(
                f"image {container.record.image_id} was removed: no checkpoint can be restored without it"
            )
        runtime = await self._ladder.sandbox_runtime(container)
        spec: dict[str, Any] = json.loads(await trio.Path(container.ref.bundle / "config.json").read_bytes())
        mark_frozen(container)
        try:
            at("freezing it")
            await runtime.pause(container.ref)
            saved_at_ns = time.time_ns()
            at("saving its processes")
            await runtime.checkpoint(container.ref, place / IMAGES_DIRECTORY, place, timeout_seconds=seconds)
            at("saving its files")
            deleted = await self._snapshots.write_diff(container.id, image, place / ROOTFS_DIFF)
        finally:
            with trio.CancelScope(shield=True):
                await self._thaws.thaw(container)
        config = CheckpointConfig(
            container_id=container.id,
            name=container.record.key.name,
            image_name=container.record.config.user_specified_image or container.record.config.image,
            image_id=image.id,
            runtime=container.sandbox.record.handler,
            created_at_ns=container.record.created_at_ns,
            checkpointed_at_ns=saved_at_ns,
        )
        dumped = dumped_spec(spec, container.record.config.annotations)
        await trio.to_thread.run_sync(_write_dumps, place, config.to_json(), dumped, deleted)
        return spec

    async def _add_binds(self, spec: dict[str, Any], place: Path) -> None:
        """Tell in the archive what the bind mounts were, as far as their file systems answer."""
        mounts = [mount for mount in spec.get("mounts", ()) if mount.get("type") == "bind"]
        found: dict[int, dict[str, Any]] = {}

        async def look(index: int, source: str) -> None:
            try:
                with trio.fail_after(_LOOK_SECONDS):
                    answer = await self._looks.ask(source, _look)
            except (trio.TooSlowError, NodedError) as error:
                log.warning("bind mount not told of in a checkpoint", source=source, error=repr(error))
                return
            if answer:
                found[index] = json.loads(answer)

        async with trio.open_nursery() as nursery:
            for index, mount in enumerate(mounts):
                nursery.start_soon(look, index, mount["source"])
        binds = [
            {"source": mount["source"], "destination": mount["destination"], **found[index]}
            for index, mount in enumerate(mounts)
            if index in found
        ]
        if binds:
            await trio.Path(place / BIND_MOUNTS).write_text(json.dumps(binds, indent=2))

    async def sweep(self) -> None:
        """At the start: remove what checkpoints left that an earlier daemon was making."""
        async with trio.open_nursery() as nursery:
            for directory in await trio.to_thread.run_sync(_subdirectories, self._layout.checkpoints):
                nursery.start_soon(self._sweep, directory)

    async def _sweep(self, directory: Path) -> None:
        try:
            await trio.to_thread.run_sync(files.remove_tree, directory / _FILES)  # all its memory: first
            temporary = await trio.to_thread.run_sync(_marked, directory)
            if temporary:
                with trio.fail_after(_UNLINK_SECONDS):  # the archive's file system may be dead
                    await self._looks.ask(temporary, _unlink)
            await trio.to_thread.run_sync(files.remove_tree, directory)
            log.info("unfinished checkpoint removed", id=directory.name)
        except Exception as error:  # the next start tries again
            log.warning("unfinished checkpoint not removed yet", id=directory.name, error=repr(error))


def _at(operation: Operation[None], stage: str) -> None:
    operation.stage = lambda: stage


async def _discard(directory: Path) -> None:
    try:
        await trio.to_thread.run_sync(files.remove_tree, directory)
    except NodedError as error:  # it goes with the next checkpoint, or at the next start
        log.warning("files of a checkpoint not removed yet", id=directory.name, error=str(error))


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


def _begin(directory: Path, temporary: Path) -> None:
    files.remove_tree(directory)
    directory.mkdir(mode=0o700)  # all memory of the container will be in it
    files.publish(directory / _MARK, os.fsencode(temporary), 0o600, durable=True)
    (directory / _FILES).mkdir(mode=0o700)
    (directory / _FILES / IMAGES_DIRECTORY).mkdir(mode=0o700)


def _subdirectories(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []


def _marked(directory: Path) -> str:
    """Where the archive's temporary file may be, "" when it was not begun."""
    try:
        return os.fsdecode((directory / _MARK).read_bytes())
    except FileNotFoundError:
        return ""


def _unlink(path: str) -> str:
    Path(path).unlink(missing_ok=True)
    return ""


def _write_dumps(place: Path, config: bytes, dumped: bytes, deleted: list[str]) -> None:
    (place / CONFIG_DUMP).write_bytes(config)
    (place / SPEC_DUMP).write_bytes(dumped)
    if deleted:
        (place / DELETED_FILES).write_text(json.dumps(deleted))


def _look(source: str) -> str:
    """What the archive says of a bind mount's source, as JSON; "" when it is not there."""
    try:
        mode = os.stat(source).st_mode
    except OSError:
        return ""
    kind = "directory" if stat.S_ISDIR(mode) else "file"
    return json.dumps({"file_type": kind, "permissions": mode & 0o777})


def _copy_log(source: str, target: Path) -> None:
    """The log so far, where there is one: a rotation may just have moved it."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(fd, "rb") as log_file, target.open("wb") as copy:
        shutil.copyfileobj(InterruptibleReader(log_file), copy)
