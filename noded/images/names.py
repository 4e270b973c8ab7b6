"""Which image a text means: an ID, the start of one, or a reference. Pure, in memory."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from noded.errors import InvalidArgument
from noded.model.image import Image
from noded.wire import reference as references
from noded.wire.reference import Reference

Meanings = Callable[[str], Iterable[Reference]]
"""What a name may mean, the first choice first. Raises InvalidArgument for a malformed one."""

_ID_START = re.compile(r"(?:sha256:)?(?P<hex>[0-9a-f]{4,63})\Z")


class Names:
    """Images by ID and by each of their names. A name belongs to one image."""

    def __init__(self) -> None:
        self._images: dict[str, Image] = {}
        self._owners: dict[str, str] = {}  # tag or digest reference -> image ID

    def __iter__(self) -> Iterator[Image]:
        return iter(self._images.values())

    def get(self, image_id: str) -> Image | None:
        return self._images.get(image_id)

    def find(self, text: str, meanings: Meanings | None = None) -> Image | None:
        """The image that a client means.

        Args:
            meanings: of a short name, by default itself on docker.io.

        Raises: InvalidArgument for a malformed reference, or the start of several IDs.
        """
        if references.is_image_id(text):
            return self._images.get(text if ":" in text else f"sha256:{text}")
        for reference in (references.parse(text),) if meanings is None else meanings(text):
            owner = self._owners.get(reference.canonical)
            if owner is not None:
                return self._images[owner]
        start = _ID_START.match(text)
        if start is None:
            return None
        found = [image for key, image in self._images.items() if key.startswith(f"sha256:{start['hex']}")]
        if len(found) > 1:
            ids = ", ".join(sorted(image.id for image in found)[:3])
            raise InvalidArgument(f"image ID {text!r} is ambiguous, write more of it: {ids}")
        return found[0] if found else None

    def merged(self, image: Image, added: Iterable[str]) -> list[Image]:
        """What changes when `image` becomes known under its names and the `added` ones.

        The first of the result is the image, with the names that it had before; the others are images
        that lose a name to it.
        """
        tags, digests = list(image.tags), list(image.digests)
        for text in added:
            reference = references.parse(text)
            (digests if reference.digest else tags).append(reference.canonical)
        known = self._images.get(image.id)
        if known is not None:
            tags, digests = [*known.tags, *tags], [*known.digests, *digests]
            image = replace(image, created_at_ns=known.created_at_ns or image.created_at_ns)
        image = replace(image, tags=_unique(tags), digests=_unique(digests))
        return [image, *self.losers(image)]

    def losers(self, image: Image) -> list[Image]:
        """Other images that have a name of `image`, without it."""
        names = {*image.tags, *image.digests}
        owners = {self._owners[name] for name in names if name in self._owners} - {image.id}
        return [_without(self._images[owner], names) for owner in sorted(owners)]

    def put(self, images: Iterable[Image]) -> None:
        """Make images known; those that lost a name come after the one that got it, or before."""
        images = list(images)
        for image in images:
            self.drop(image.id)
        for image in images:
            self._images[image.id] = image
            for name in (*image.tags, *image.digests):
                self._owners[name] = image.id

    def drop(self, image_id: str) -> None:
        """Forget an image; an unknown one is success."""
        image = self._images.pop(image_id, None)
        for name in (*image.tags, *image.digests) if image else ():
            if self._owners.get(name) == image_id:
                del self._owners[name]


def is_pinned(image: Image, patterns: Sequence[str]) -> bool:
    """Whether a name of the image is one of the patterns: references as people write them, or globs."""
    names = (*image.tags, *image.digests)
    return any(_matches(pattern, names) for pattern in patterns)


def _matches(pattern: str, names: Collection[str]) -> bool:
    if any(fnmatch.fnmatchcase(name, pattern) for name in names):
        return True
    try:
        return references.parse(pattern).canonical in names
    except InvalidArgument:
        return False  # a glob is no reference


def _without(image: Image, names: Collection[str]) -> Image:
    return replace(
        image,
        tags=tuple(tag for tag in image.tags if tag not in names),
        digests=tuple(digest for digest in image.digests if digest not in names),
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))
