"""The host side of a container's mounts: does the source exist, and what is it really.

A volume's path may hang (a dead NFS or FUSE server), so a look at one is given up when the budget
ends (see `looks`); the message then names the path.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence

import trio

from noded.engine.looks import Looks
from noded.errors import DeadlineExceeded, FailedPrecondition
from noded.host.mountinfo import MountEntry, holder, parse_mountinfo, read_mountinfo
from noded.model.container import Mount
from noded.spec.inputs import ResolvedMount

_LOOK_SECONDS = 180.0  # below the create budget, so that the message can name the path


async def resolve_mounts(
    mounts: Sequence[Mount],
    images: Mapping[int, str],
    looks: Looks,
    stage: Callable[[str], None],
    must_exist: Collection[str] = (),
) -> tuple[ResolvedMount, ...]:
    """Follow symlinks of every source, make missing directories, and note the propagation.

    Args:
        images: position in `mounts` -> host path of a mounted image volume.
        looks: shared by all containers of the node.
        stage: told which path is being looked at.
        must_exist: host paths that are refused when they are absent.

    Raises: DeadlineExceeded naming a path that does not answer, FailedPrecondition otherwise.
    Cancellation: safe; at most an empty directory was made.
    """
    if not mounts:
        return ()
    table = parse_mountinfo(await trio.to_thread.run_sync(read_mountinfo))
    return tuple(
        [
            ResolvedMount(mount, images[index])
            if index in images
            else await _resolve(mount, table, looks, stage, must_exist)
            for index, mount in enumerate(mounts)
        ]
    )


async def _resolve(
    mount: Mount,
    table: Sequence[MountEntry],
    looks: Looks,
    stage: Callable[[str], None],
    must_exist: Collection[str],
) -> ResolvedMount:
    look = _look(mount.host_path, must_exist)
    stage(f"spec: stat({mount.host_path})")
    try:
        with trio.fail_after(_LOOK_SECONDS):
            source = await looks.ask(mount.host_path, look)
    except trio.TooSlowError:
        raise DeadlineExceeded(
            f"stat({mount.host_path}) did not answer within {_LOOK_SECONDS:g} s: "
            f"check the file system behind it (mounted at {mount.container_path})"
        ) from None
    parent = holder(table, source)
    return ResolvedMount(
        mount=mount,
        source=source,
        parent=parent.mount_point if parent else "/",
        parent_shared=bool(parent and parent.shared),
        parent_slave=bool(parent and parent.master),
    )


def _look(host_path: str, must_exist: Collection[str]) -> Callable[[str], str]:
    return _present_source if os.path.normpath(host_path) in must_exist else _real_source


def _present_source(host_path: str) -> str:
    if not os.path.lexists(os.path.realpath(host_path)):
        raise FailedPrecondition(
            f"mount source {host_path} does not exist, and absent_mount_sources_to_reject forbids to make it"
        )
    return _real_source(host_path)


def _real_source(host_path: str) -> str:
    source = os.path.realpath(host_path)
    try:
        os.lstat(source)
    except FileNotFoundError:
        # Both peers make the directory; kubelet relies on it for hostPath without a type.
        try:
            os.makedirs(source, mode=0o755, exist_ok=True)
        except OSError as error:
            raise FailedPrecondition(f"mount source {host_path} does not exist: {error}") from error
    except OSError as error:
        raise FailedPrecondition(f"mount source {host_path} cannot be used: {error}") from error
    return source
