"""The explanation of a spec as one JSON document (docs/json.md has its keys)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from noded.spec.explain.explain import Explained
from noded.spec.explain.peers import PEERS, differences
from noded.spec.explain.sources import Source

SCHEMA_VERSION = 1


def document(
    subject: dict[str, str],
    explained: Sequence[Explained],
    *,
    absent: Iterable[str] = (),
    notes: Iterable[str] = (),
    pod_sysctls: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Put an explanation into its JSON form.

    Args:
        subject: what is explained: `container` and more, or `request`.
        absent: fields that today's configuration would add.
        notes: what the node could not grant, and what could not be looked at.
        pod_sysctls: those of the pod, which are in no container's spec; None = not known.
    """
    return {
        "schema": SCHEMA_VERSION,
        "subject": subject,
        "fields": [_field(one) for one in explained],
        "absent": list(absent),
        "notes": list(notes),
        "peers": {name: differences(name, explained, pod_sysctls) for name in PEERS},
    }


def _field(one: Explained) -> dict[str, Any]:
    return {
        "name": one.name,
        "value": one.value,
        "origin": _source(one.origin),
        "also": [_source(source) for source in one.also],
        "unless": [_source(source) for source in one.unless],
    }


def _source(source: Source) -> dict[str, str]:
    found = {"kind": source.kind.value, "name": source.name}
    return found | {"note": source.note} if source.note else found
