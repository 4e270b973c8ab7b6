"""Writing an additional image store (`noded.images.stores`)."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from pathlib import Path

import trio

from noded.errors import FailedPrecondition
from noded.host import files, libc
from noded.images.filesystem import sync_filesystem
from noded.images.library import Library
from noded.images.stores import IMAGES, LAYERS, LAYOUT, MARK, check_mark
from noded.model.image import Image
from noded.store.images import encode

_RELEASE_SECONDS = 60.0
_COPY = ("cp", "--recursive", "--no-dereference", "--reflink=auto")
_KEEP = "--preserve=mode,ownership,timestamps,links,xattr"  # "all" would pass over xattrs that fail


async def export_store(images: Sequence[Image], directory: Path, library: Library) -> None:
    """Add images to an additional image store, which is made if it is not there. Nodes may use it meanwhile.

    What the store has already is kept. One writer at a time.

    Raises: FailedPrecondition when the directory holds something else, or a store of a newer layout;
        also with what cp(1) said, e.g. when its file system cannot keep overlay attributes.
    Cancellation: safe; complete images stay, half a layer is overwritten by the next export.
    """
    owner = f"export-{secrets.token_hex(8)}"
    try:
        await trio.to_thread.run_sync(_begin, directory)
        for image in images:
            await library.lease(image.chain_ids, owner)
            for chain_id in image.chain_ids:
                library.layers.record(chain_id)  # images of other stores stay there
                await _copy(library.layers.tree(chain_id).parent, directory / LAYERS)
            await trio.to_thread.run_sync(_publish, image, directory)
    finally:
        with trio.move_on_after(_RELEASE_SECONDS, shield=True):
            await library.release(owner)


def _begin(directory: Path) -> None:
    try:
        # Images hold set-id programs: no user of a node may reach them.
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            check_mark(directory)
        for name in (IMAGES, LAYERS):
            (directory / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise libc.os_error(error, f"cannot make an image store in {directory}") from None
    if not (directory / MARK).exists():
        files.publish(directory / MARK, json.dumps({"layout": LAYOUT}).encode(), durable=True)


async def _copy(source: Path, layers: Path) -> None:
    final = layers / source.name
    if await trio.to_thread.run_sync(final.is_dir):
        return
    fresh = layers / f".new-{source.name}"
    await trio.to_thread.run_sync(files.remove_tree, fresh)
    await trio.to_thread.run_sync(fresh.mkdir, 0o700)
    for name in ("fs", "record.json"):
        command = [*_COPY, _KEEP, "--", str(source / name), str(fresh)]
        result = await trio.run_process(command, capture_stderr=True, check=False)
        if result.returncode:
            said = result.stderr.decode(errors="replace").strip().splitlines()
            raise FailedPrecondition(
                f"cannot copy layer {source.name} to {layers}: {said[-1] if said else 'cp failed'}"
            )
    await trio.to_thread.run_sync(sync_filesystem, layers)
    await trio.to_thread.run_sync(fresh.rename, final)


def _publish(image: Image, directory: Path) -> None:
    files.sync_directory(directory / LAYERS)
    name = f"{image.id.partition(':')[2]}.json"
    files.publish(directory / IMAGES / name, encode(image).encode(), 0o600, durable=True)
