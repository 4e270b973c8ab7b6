"""Reads the CNI configuration directory and chooses the pod network from what is in it.

Reading blocks; choosing is pure. A file is read whole or reported with the reason; one bad file
does not hide the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noded.errors import FailedPrecondition
from noded.network.conflist import EXTENSIONS, Conflist, parse_conflist, parse_plugin, require_plugins

_LARGEST_FILE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that is no usable network; `reason` begins with its name."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What the directory holds, in lexical order of the file names."""

    directory: Path
    exists: bool = False
    networks: tuple[Conflist, ...] = ()
    broken: tuple[Broken, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """The pod network, or None; `message` says what is wrong, or worth knowing, about the files."""

    conflist: Conflist | None
    message: str = ""


def read_confdir(directory: Path) -> Listing:
    """Read every configuration file of the directory. Blocking; never raises for what it finds."""
    try:
        names = sorted(
            entry.name
            for entry in directory.iterdir()
            # Hidden files are the unfinished work of editors and atomic writers.
            if entry.suffix in EXTENSIONS and not entry.name.startswith(".") and entry.is_file()
        )
    except FileNotFoundError:
        return Listing(directory)
    except OSError as error:
        return Listing(directory, True, (), (Broken(str(directory), f"{directory}: {error.strerror}"),))
    networks: list[Conflist] = []
    broken: list[Broken] = []
    for name in names:
        try:
            networks.append(_read_network(directory, name))
        except FileNotFoundError:
            continue  # removed since it was listed, or a link to nowhere
        except (FailedPrecondition, OSError, UnicodeDecodeError) as error:
            reason = (
                str(error) if isinstance(error, FailedPrecondition) else f"{name}: cannot be read: {error}"
            )
            broken.append(Broken(name, reason))
    return Listing(directory, True, tuple(networks), tuple(broken))


def choose(listing: Listing, wanted: str, previous: Conflist | None) -> Choice:
    """Choose the first network, or the one named `wanted`.

    While the previous choice's file is there but broken, as during a rewrite in place, the previous
    content stays in force: pods must not land in another network because of a half-written file.
    """
    where = listing.directory
    if not listing.exists:
        return Choice(
            None, f"{where} does not exist: install a network add-on, or write a .conflist file there"
        )
    broken = {item.source: item.reason for item in listing.broken}
    if previous is not None and previous.source in broken and (not wanted or previous.name == wanted):
        return Choice(previous, f"its last good content is in use: {broken[previous.source]}")
    fitting = [network for network in listing.networks if not wanted or network.name == wanted]
    reasons = "; ".join(broken.values())
    if fitting:
        return Choice(fitting[0], f"ignored: {reasons}" if reasons else "")
    if wanted and listing.networks:
        found = ", ".join(network.name for network in listing.networks)
        others = f"; unusable: {reasons}" if reasons else ""
        message = f"no network named {wanted!r} in {where} (found: {found}{others})"
        return Choice(None, f"{message}: correct [network] default_network")
    if broken:
        return Choice(None, f"no usable network in {where}, correct the files: {reasons}")
    return Choice(None, f"{where} has no network: install a network add-on, or write a .conflist file there")


def _read_network(directory: Path, name: str) -> Conflist:
    text = _read(directory / name)
    conflist = parse_conflist(text, name)
    if not conflist.inlined_only:
        added = _read_added(directory, conflist.name)
        if added:
            conflist = parse_conflist(text, name, added=added)
    require_plugins(conflist)
    return conflist


def _read_added(directory: Path, network: str) -> list[Mapping[str, Any]]:
    """Plugins that other programs add to a network by files in a directory of its name."""
    folder = directory / network
    try:
        names = sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.suffix == ".conf" and not entry.name.startswith(".")
        )
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [parse_plugin(_read(folder / name), f"{network}/{name}") for name in names]


def _read(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_LARGEST_FILE_BYTES + 1)
    if len(data) > _LARGEST_FILE_BYTES:
        raise FailedPrecondition(f"{path.name}: larger than 1 MiB")
    return data.decode("utf-8")
