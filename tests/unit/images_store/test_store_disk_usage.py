"""Shared and own bytes of images."""

from __future__ import annotations

from test_store_names import digest, image

from noded.images.disk_usage import image_usages


def test_what_images_share_is_unique_to_none() -> None:
    one, two = image("1", layers="ab"), image("2", layers="a")
    blobs = {digest(name): 10 for name in ("1", "m1", "2", "m2", "ba", "bb", "garbage")}
    layers = {digest("ca"): 1000, digest("cb"): 100}
    first, second = image_usages([one, two], blobs, layers, {digest("cb")})
    assert (first.used_bytes, first.unique_bytes, first.in_use) == (1140, 130, True)
    assert (second.used_bytes, second.unique_bytes, second.in_use) == (1030, 20, False)
    (alone,) = image_usages([two], blobs, layers, ())
    assert alone.used_bytes == alone.unique_bytes == 1030
