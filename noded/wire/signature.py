"""What a signature of an image says: the JSON of containers-signature(5), and of cosign. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from noded.errors import InvalidArgument
from noded.wire import digest as digests
from noded.wire.descriptor import as_object, as_text

MAX_PAYLOAD_BYTES: Final = 64 << 10
SIMPLE: Final = "atomic container signature"
COSIGN: Final = "cosign container image signature"


@dataclass(frozen=True, slots=True)
class Claim:
    """The manifest that was signed, and the name that it was signed for."""

    manifest_digest: str
    name: str


def parse_claim(data: bytes, kinds: tuple[str, ...] = (SIMPLE,)) -> Claim:
    """Read a signed payload. Nothing may be in its critical part that is not understood.

    Raises: InvalidArgument.
    """
    if len(data) > MAX_PAYLOAD_BYTES:
        raise InvalidArgument(f"the signed text is longer than {MAX_PAYLOAD_BYTES} bytes")
    try:
        fields = as_object(json.loads(data, object_pairs_hook=_once), "the signed text")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"the signed text is not JSON: {error}") from None
    if fields.keys() - {"critical", "optional"}:
        raise InvalidArgument("the signed text has more than critical and optional parts")
    critical = as_object(fields.get("critical"), "critical")
    image = as_object(critical.get("image"), "critical.image")
    identity = as_object(critical.get("identity"), "critical.identity")
    exact = (critical.keys(), {"type", "image", "identity"}), (image.keys(), {"docker-manifest-digest"})
    if any(found != wanted for found, wanted in (*exact, (identity.keys(), {"docker-reference"}))):
        raise InvalidArgument("the critical part of the signed text has keys that are not known here")
    if (kind := critical["type"]) not in kinds:
        raise InvalidArgument(f"the signed text is of type {kind!r}")
    return Claim(
        digests.parse(as_text(image["docker-manifest-digest"], "docker-manifest-digest")),
        as_text(identity["docker-reference"], "docker-reference"),
    )


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two readers may disagree about a repeated key."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key is repeated")
    return fields
