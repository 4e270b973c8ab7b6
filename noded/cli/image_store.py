"""`noded images inspect|verify|df`: what is in the store, whether it is whole, and what it takes."""

from __future__ import annotations

import argparse
import json

from noded.cli.client import Daemon, query_seconds, wait_for
from noded.cli.documents.images import DiskUsage, ImagesVerified
from noded.cli.quantities import short_id, size
from noded.cli.table import print_json, print_table
from noded.proto.noded.admin import v1 as admin


def inspect(arguments: argparse.Namespace) -> int:
    """Print everything that is known of an image."""
    print_json(json.loads(wait_for(_inspect(arguments)).json))
    return 0


async def _inspect(arguments: argparse.Namespace) -> admin.InspectImageResponse:
    timeout = query_seconds(arguments.timeout)
    async with Daemon(arguments.address) as daemon:
        request = admin.InspectImageRequest(reference=arguments.image)
        return await daemon.admin("InspectImage", request, admin.InspectImageResponse, timeout)


def verify(arguments: argparse.Namespace) -> int:
    """Print what is damaged; status 1 when an image cannot be used."""
    images = wait_for(_verify(arguments)).images
    if arguments.json:
        verified: ImagesVerified = [
            {
                "id": image.id,
                "references": list(image.references),
                "usable": image.usable,
                "repaired": image.repaired,
                "problems": list(image.problems),
            }
            for image in images
        ]
        print_json(verified)
    else:
        for image in images:
            print(f"{_state(image):<9} {short_id(image.id)} {_first(image.references)}")
            for problem in image.problems:
                print(f"          {problem}")
    return 0 if all(image.usable for image in images) else 1


async def _verify(arguments: argparse.Namespace) -> admin.VerifyImagesResponse:
    async with Daemon(arguments.address) as daemon:
        request = admin.VerifyImagesRequest(references=arguments.images, deep=arguments.deep)
        return await daemon.admin("VerifyImages", request, admin.VerifyImagesResponse, arguments.timeout)


def _state(image: admin.VerifiedImage) -> str:
    if not image.usable:
        return "damaged"
    if image.repaired:
        return "repaired"
    return "problems" if image.problems else "good"


def usage(arguments: argparse.Namespace) -> int:
    """Print what each image takes on disk, the largest first."""
    reply = wait_for(_usage(arguments))
    images = sorted(reply.images, key=lambda image: -image.used_bytes)
    if arguments.json:
        used: DiskUsage = {
            "images": [
                {
                    "id": image.id,
                    "references": list(image.references),
                    "used_bytes": image.used_bytes,
                    "unique_bytes": image.unique_bytes,
                    "in_use": image.in_use,
                }
                for image in images
            ],
            "images_bytes": reply.images_bytes,
            "containers_bytes": reply.containers_bytes,
        }
        print_json(used)
        return 0
    print_table(
        ("IMAGE", "IMAGE ID", "ON DISK", "UNIQUE", "IN USE"),
        [
            (
                _first(image.references),
                short_id(image.id),
                size(image.used_bytes),
                size(image.unique_bytes),
                "yes" if image.in_use else "",
            )
            for image in images
        ],
    )
    print(f"\nimages {size(reply.images_bytes)}, writable layers {size(reply.containers_bytes)}")
    return 0


async def _usage(arguments: argparse.Namespace) -> admin.ImageUsageResponse:
    async with Daemon(arguments.address) as daemon:
        return await daemon.admin(
            "ImageUsage", admin.ImageUsageRequest(), admin.ImageUsageResponse, arguments.timeout
        )


def _first(references: list[str]) -> str:
    return references[0] if references else "<none>"
