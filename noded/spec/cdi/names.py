"""Names of CDI devices: `VENDOR/CLASS=NAME`, and where a request has them (CDI SPEC.md "Kind")."""

from __future__ import annotations

import re
from typing import NamedTuple

from noded.errors import InvalidArgument
from noded.model.container import ContainerConfig

ANNOTATION_PREFIX = "cdi.k8s.io/"

_VENDOR = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_CLASS = re.compile(r"[A-Za-z](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?")
_DEVICE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.:-]*[A-Za-z0-9])?")


class Kind(NamedTuple):
    """`VENDOR/CLASS`."""

    vendor: str
    device_class: str

    def __str__(self) -> str:
        return f"{self.vendor}/{self.device_class}"


def parse_kind(text: str) -> Kind:
    """Raises: InvalidArgument saying which part is wrong."""
    vendor, slash, device_class = text.partition("/")
    if not slash:
        raise InvalidArgument(f"{text!r} is not VENDOR/CLASS")
    if not _VENDOR.fullmatch(vendor):
        raise InvalidArgument(f"{vendor!r} in {text!r} cannot be a vendor")
    if not _CLASS.fullmatch(device_class):
        raise InvalidArgument(f"{device_class!r} in {text!r} cannot be a class of devices")
    return Kind(vendor, device_class)


def check_device_name(name: str) -> str:
    """Return the name. Raises: InvalidArgument."""
    if not _DEVICE.fullmatch(name):
        raise InvalidArgument(f"{name!r} cannot be the name of a CDI device")
    return name


def qualified(text: str) -> str:
    """Return a device's whole name if it is one. Raises: InvalidArgument saying which part is wrong."""
    kind, equals, name = text.partition("=")
    if not equals:
        raise InvalidArgument(f"{text!r} is not VENDOR/CLASS=NAME")
    parse_kind(kind)
    check_device_name(name)
    return text


def requested_devices(container: ContainerConfig) -> tuple[str, ...]:
    """The CDI devices of a request, each once: those of its field, then those of its annotations.

    Device plugins from before the field existed say them in annotations `cdi.k8s.io/PLUGIN`, as a list
    with commas. Both ways may name the same device.

    Raises: InvalidArgument naming the field or the annotation.
    """
    found: dict[str, None] = {}
    for index, name in enumerate(container.cdi_devices):
        found[_named(name, f"CDI_devices[{index}].name")] = None
    for key in sorted(container.annotations):
        if key.startswith(ANNOTATION_PREFIX):
            for name in container.annotations[key].split(","):
                found[_named(name.strip(), f"annotation {key}")] = None
    return tuple(found)


def _named(text: str, where: str) -> str:
    try:
        return qualified(text)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}: {error}") from None
