"""Extension headers: pax(1), "pax Interchange Format". Pure."""

from __future__ import annotations

from noded.images.unpack.faults import corrupt
from noded.images.unpack.fields import decimal

Pax = dict[bytes, bytes]


def parse_pax(data: bytes) -> Pax:
    """The records "LENGTH KEY=VALUE\\n" of an extension header.

    The repeated keys of sparse format 0.0 are joined to the map of format 0.1.
    """
    records: Pax = {}
    pairs: list[bytes] = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 21)
        if space < 0:
            if not data[position:].strip(b"\0"):
                break
            raise corrupt("an extension header has a record without length")
        end = position + decimal(data[position:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals or not key:
            raise corrupt("an extension header has a malformed record")
        position = end
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (len(pairs) % 2 == 0) != (key == b"GNU.sparse.offset"):
                raise corrupt("a sparse map has its offsets and lengths out of order")
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records
