"""Classes of block I/O and of cache and memory bandwidth (RDT), which annotations of a pod choose.

`blockio.resources.beta.kubernetes.io/pod` and `rdt.resources.beta.kubernetes.io/pod` are for all containers,
`.../container.NAME` for one. The files are those that containerd and CRI-O read (goresctrl's); keys count in
any case. Spec: OCI runtime-spec, config-linux.md, "Block IO" and "IntelRdt".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noded.errors import InvalidArgument
from noded.model.quantity import parse_quantity
from noded.wire.descriptor import as_list, as_object, as_text
from noded.wire.yaml_subset import parse_blocks

_WEIGHTS = (10, 1000)
# Key of the file -> key of the OCI specification.
_THROTTLES = {
    "throttlereadbps": "throttleReadBpsDevice",
    "throttlewritebps": "throttleWriteBpsDevice",
    "throttlereadiops": "throttleReadIOPSDevice",
    "throttlewriteiops": "throttleWriteIOPSDevice",
}


@dataclass(frozen=True, slots=True)
class BlockIo:
    """One entry of a class: for `devices` (paths with wildcards), or the default weight without any."""

    devices: tuple[str, ...] = ()
    weight: int | None = None
    throttles: Mapping[str, int] = field(default_factory=dict)


def class_of(kind: str, annotations: Mapping[str, str], container: str) -> tuple[str, str] | None:
    """The annotation that chooses a container's class and the class, None when there is none.

    Args:
        kind: `blockio` or `rdt`.
        annotations: of the pod.
    """
    for scope in (f"container.{container}", "pod"):
        key = f"{kind}.resources.beta.kubernetes.io/{scope}"
        if key in annotations:
            return key, annotations[key]
    return None


def parse_blockio(text: str) -> Mapping[str, tuple[BlockIo, ...]]:
    """The classes of a `blockio_config_file`. Raises: InvalidArgument naming the line or the key."""
    document = _lower(parse_blocks(text) or {}, "the document")
    for key in document:
        if key != "classes":
            raise InvalidArgument(f"unknown key {key!r}; there is classes")
    classes = as_object(document.get("classes") or {}, "classes")
    return {
        name: tuple(
            _entry(entry, f"classes.{name}[{index}]")
            for index, entry in enumerate(as_list(entries, f"classes.{name}"))
        )
        for name, entries in classes.items()
    }


def block_io(entries: Iterable[BlockIo], find: Callable[[str], Iterable[tuple[int, int]]]) -> dict[str, Any]:
    """`linux.resources.blockIO` of a class; of two entries for one device the later counts.

    Args:
        find: the block devices of a path with wildcards, as (major, minor).
    """
    value: dict[str, Any] = {}
    chosen: dict[tuple[int, int], BlockIo] = {}
    for entry in entries:
        if not entry.devices:
            value["weight"] = entry.weight
        for pattern in entry.devices:
            chosen.update((device, entry) for device in find(pattern))
    weights = [
        {"major": major, "minor": minor, "weight": entry.weight}
        for (major, minor), entry in sorted(chosen.items(), key=lambda item: item[0])
        if entry.weight is not None
    ]
    if weights:
        value["weightDevice"] = weights
    for name in _THROTTLES.values():
        rates = [
            {"major": major, "minor": minor, "rate": entry.throttles[name]}
            for (major, minor), entry in sorted(chosen.items(), key=lambda item: item[0])
            if name in entry.throttles
        ]
        if rates:
            value[name] = rates
    return value


def parse_rdt(text: str) -> frozenset[str]:
    """The names of the classes of an `rdt_config_file`. Raises: InvalidArgument naming the line or key."""
    document = _lower(parse_blocks(text) or {}, "the document")
    found: set[str] = set()
    for name, partition in as_object(document.get("partitions") or {}, "partitions").items():
        where = f"partitions.{name}"
        classes = _lower(partition or {}, where).get("classes") or {}
        found |= as_object(classes, f"{where}.classes").keys()
    return frozenset(found)


def _entry(value: Any, where: str) -> BlockIo:
    fields = _lower(value, where)
    for key in fields:
        if key not in ("devices", "weight", *_THROTTLES):
            raise InvalidArgument(f"{where}: unknown key {key!r}; there are devices, weight, throttle*")
    paths = as_list(fields.get("devices"), f"{where}.devices")
    devices = tuple(as_text(item, f"{where}.devices") for item in paths)
    for path in devices:
        if not path.startswith("/dev/") or ".." in path.split("/"):
            raise InvalidArgument(f"{where}.devices: {path!r} is not below /dev")
    weight = _number(fields, "weight", where)
    low, high = _WEIGHTS
    if weight is not None and not low <= weight <= high:
        raise InvalidArgument(f"{where}.weight: {weight} is not within {low} to {high}")
    rates = {name: _number(fields, key, where) for key, name in _THROTTLES.items()}
    throttles = {name: rate for name, rate in rates.items() if rate is not None}
    if not devices and (throttles or weight is None):
        raise InvalidArgument(f"{where}: an entry without devices has a weight and nothing else")
    return BlockIo(devices, weight, throttles)


def _number(fields: Mapping[str, Any], key: str, where: str) -> int | None:
    value = fields.get(key)
    if value is None:
        return None
    try:
        number = parse_quantity(str(value))
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}.{key}: {error}") from None
    if isinstance(value, bool) or not 0 <= number < 2**63:
        raise InvalidArgument(f"{where}.{key}: {value!r} is not a number from 0")
    return number


def _lower(value: Any, where: str) -> dict[str, Any]:
    return {str(key).lower(): item for key, item in as_object(value, where).items()}
