"""`noded images`: the image store of this node."""

from __future__ import annotations

import argparse
import getpass
import sys
from contextlib import nullcontext
from pathlib import Path

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.images import Image, ImagesLoaded, ImagesRemoved, ImagesSaved, Pulled, StoreExported
from noded.cli.pull_progress import shown
from noded.cli.quantities import short_id, size
from noded.cli.table import print_json, print_table
from noded.errors import NotFound
from noded.proto.noded.admin import v1 as admin
from noded.proto.runtime import v1 as cri

_FORMATS = {"oci": admin.ArchiveFormat.OCI, "docker": admin.ArchiveFormat.DOCKER}


def list_images(arguments: argparse.Namespace) -> int:
    """Print the images, one line for each name."""
    images = sorted((_image(item) for item in wait_for(_list(arguments)).images), key=_sort_key)
    if arguments.json:
        print_json(images)
    elif arguments.quiet:
        print(*(image["id"] for image in images), sep="\n", end="\n" if images else "")
    else:
        print_table(
            ("IMAGE", "IMAGE ID", "SIZE", "PINNED"),
            [
                (name, short_id(image["id"]), size(image["size_bytes"]), "yes" if image["pinned"] else "")
                for image in images
                for name in image["tags"] or image["digests"] or ["<none>"]
            ],
        )
    return 0


async def _list(arguments: argparse.Namespace) -> cri.ListImagesResponse:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        return await daemon.image("ListImages", cri.ListImagesRequest(), cri.ListImagesResponse, timeout)


def pull(arguments: argparse.Namespace) -> int:
    """Pull one image; Ctrl-C stops the pull in the daemon as well."""
    image_id = wait_for(_pull(arguments, _credentials(arguments.creds)))
    if arguments.json:
        pulled: Pulled = {"id": image_id, "reference": arguments.reference}
        print_json(pulled)
    else:
        print(image_id)
    return 0


async def _pull(arguments: argparse.Namespace, auth: cri.AuthConfig | None) -> str:
    request = cri.PullImageRequest(image=cri.ImageSpec(image=arguments.reference), auth=auth)
    async with Daemon(arguments.address) as daemon:
        on_terminal = sys.stderr.isatty() and not arguments.json
        async with shown(daemon, arguments.reference) if on_terminal else nullcontext():
            reply = await daemon.image("PullImage", request, cri.PullImageResponse, arguments.timeout)
    return reply.image_ref


def _credentials(text: str) -> cri.AuthConfig | None:
    if not text:
        return None
    user, colon, password = text.partition(":")
    if not colon:
        # Kept out of the process list and the shell's history.
        password = getpass.getpass("Password: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
    return cri.AuthConfig(username=user, password=password)


def remove(arguments: argparse.Namespace) -> int:
    """Remove images with all their names. Raises NotFound for the first that is not there."""
    for image_id in wait_for(_remove(arguments)):
        if not arguments.json:
            print(f"removed {image_id}")
    if arguments.json:
        removed: ImagesRemoved = {"removed": arguments.images}
        print_json(removed)
    return 0


async def _remove(arguments: argparse.Namespace) -> list[str]:
    removed = []
    async with Daemon(arguments.address) as daemon:
        for name in arguments.images:
            spec = cri.ImageSpec(image=name)
            # RemoveImage succeeds for an absent image, as CRI wants; a person wants to know.
            request = cri.ImageStatusRequest(image=spec)
            found = await daemon.image("ImageStatus", request, cri.ImageStatusResponse)
            if found.image is None:
                raise NotFound(f"no image {name} on this node")
            await daemon.image(
                "RemoveImage", cri.RemoveImageRequest(image=spec), cri.RemoveImageResponse, arguments.timeout
            )
            removed.append(found.image.id)
    return removed


def load(arguments: argparse.Namespace) -> int:
    """Load the images of an archive or layout."""
    reply = wait_for(_load(arguments, Path(arguments.path).absolute()))
    if arguments.json:
        loaded: ImagesLoaded = [
            {"id": image.id, "references": list(image.references)} for image in reply.images
        ]
        print_json(loaded)
    else:
        for image in reply.images:
            print(f"loaded {image.id}  {' '.join(image.references)}".rstrip())
    return 0


async def _load(arguments: argparse.Namespace, path: Path) -> admin.LoadImageResponse:
    async with Daemon(arguments.address) as daemon:
        request = admin.LoadImageRequest(path=str(path))
        return await daemon.admin("LoadImage", request, admin.LoadImageResponse, arguments.timeout)


def save(arguments: argparse.Namespace) -> int:
    """Save images into one archive."""
    path = Path(arguments.output).absolute()
    wait_for(_save(arguments, path, _FORMATS[arguments.format]))
    if arguments.json:
        saved: ImagesSaved = {
            "path": str(path),
            "references": arguments.references,
            "format": arguments.format,
        }
        print_json(saved)
    return 0


def export_store(arguments: argparse.Namespace) -> int:
    """Write images to an additional image store."""
    path = Path(arguments.directory).absolute()
    wait_for(_save(arguments, path, admin.ArchiveFormat.STORE))
    if arguments.json:
        exported: StoreExported = {"path": str(path), "references": arguments.references}
        print_json(exported)
    return 0


async def _save(arguments: argparse.Namespace, path: Path, form: admin.ArchiveFormat) -> None:
    async with Daemon(arguments.address) as daemon:
        request = admin.SaveImageRequest(references=arguments.references, path=str(path), format=form)
        await daemon.admin("SaveImage", request, admin.SaveImageResponse, arguments.timeout)


def _image(item: cri.Image) -> Image:
    return {
        "id": item.id,
        "tags": list(item.repo_tags),
        "digests": list(item.repo_digests),
        "size_bytes": item.size,
        "pinned": item.pinned,
    }


def _sort_key(image: Image) -> tuple[list[str], list[str], str]:
    return image["tags"], image["digests"], image["id"]
