"""Content digests: `algorithm:hex` as image-spec descriptor.md defines them. Pure.

Everywhere else a digest is the plain string that `parse` has accepted once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Any, Final

from noded.errors import DataLoss, InvalidArgument

HEX_LENGTH: Final = {"sha256": 64, "sha512": 128}  # the registered algorithms of image-spec
_HEX: Final = re.compile(r"[0-9a-f]+\Z")


def parse(text: str) -> str:
    """Return `text` if it is a digest that noded can verify.

    Raises: InvalidArgument naming what is wrong with it.
    """
    algorithm, colon, encoded = text.partition(":")
    if not colon:
        raise InvalidArgument(f"digest {text!r} has no algorithm: write it as sha256:<64 hex digits>")
    length = HEX_LENGTH.get(algorithm)
    if length is None:
        known = ", ".join(HEX_LENGTH)
        raise InvalidArgument(f"digest {text!r} uses algorithm {algorithm!r}: noded verifies {known}")
    if len(encoded) != length:
        raise InvalidArgument(f"digest {text!r} has {len(encoded)} digits after the colon, not {length}")
    if not _HEX.match(encoded):
        raise InvalidArgument(f"digest {text!r} has characters other than 0-9 and a-f after the colon")
    return text


def algorithm(digest: str) -> str:
    """The algorithm part of a parsed digest."""
    return digest.partition(":")[0]


def encoded(digest: str) -> str:
    """The hexadecimal part of a parsed digest."""
    return digest.partition(":")[2]


def hasher(digest: str) -> Any:
    """A fresh hashlib object for the algorithm of a parsed digest."""
    return hashlib.new(algorithm(digest), usedforsecurity=False)


def of(data: bytes, algorithm: str = "sha256") -> str:
    """The digest of `data`."""
    return f"{algorithm}:{hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()}"


def verify(data: bytes, expected: str, what: str) -> None:
    """Check that `data` hashes to the parsed digest `expected`.

    Raises: DataLoss with `what` (such as "manifest of quay.io/a/b:c") as its subject.
    """
    actual = of(data, algorithm(expected))
    if not hmac.compare_digest(actual, expected):
        raise DataLoss(f"{what} is damaged: its digest is {actual}, expected {expected}")
