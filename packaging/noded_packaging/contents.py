"""What each package installs, the same for deb and rpm but for the places that distributions differ in."""

from __future__ import annotations

import email
import email.message
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from noded.cli import grammar
from noded_packaging import commands, completions, manpages, wheels
from noded_packaging.project import PACKAGING, Package, Project
from noded_packaging.tree import Tree

LIBRARY = "/usr/lib/noded"
_ZSH = {"deb": "/usr/share/zsh/vendor-completions", "rpm": "/usr/share/zsh/site-functions"}


@dataclass(frozen=True, slots=True)
class Contents:
    """Everything to install, with the C library that it needs, (0, 0) when nothing is compiled."""

    tree: Tree
    glibc: tuple[int, int]
    distributions: tuple[Path, ...]  # vendored wheels


def assemble(project: Project, package: Package, machine: str, kind: str, work: Path) -> Contents:
    """Gather what a package installs.

    Args:
        machine: the kernel's name of the architecture, e.g. x86_64.
        kind: deb or rpm.
        work: directory for downloads (kept) and builds.
    """
    tree = Tree()
    for installed, source in package.files.items():
        file = PACKAGING / source
        tree.add(installed, file.read_bytes(), executable=bool(file.stat().st_mode & 0o100))
    for directory in package.directories:
        tree.add_directory(directory)
    wheel = wheels.build(package.project, work / "build" / package.name, project.epoch)
    wheels.unpack(tree, wheel, f"{LIBRARY}/{wheels.COMMON}")
    if not package.vendored:
        return Contents(tree, (0, 0), ())
    vendored = wheels.distribute(wheels.download(project, machine, work / "wheels"))
    for directory, paths in vendored.items():
        tree.add_directory(f"{LIBRARY}/{directory}")  # says that this Python is supported
        for path in paths:
            wheels.unpack(tree, path, f"{LIBRARY}/{directory}", project.omit)
    _add_documentation(tree, project, kind)
    every = sorted({path.name: path for paths in vendored.values() for path in paths}.items())
    return Contents(tree, wheels.glibc_needed(path for _, path in every), tuple(path for _, path in every))


def _add_documentation(tree: Tree, project: Project, kind: str) -> None:
    top = commands.read(grammar.parser())
    for name, text in manpages.pages(top, project.version, project.epoch).items():
        tree.add_compressed(f"/usr/share/man/man{name.rpartition('.')[2]}/{name}", text)
    tree.add("/usr/share/bash-completion/completions/noded", completions.bash(top))
    tree.add(f"{_ZSH[kind]}/_noded", completions.zsh(top))
    tree.add("/usr/share/fish/vendor_completions.d/noded.fish", completions.fish(top))


def licenses(paths: Iterable[Path]) -> list[tuple[str, str, str]]:
    """Return (name, version, license) of each distribution, as its own metadata says."""
    found = {}
    for path in paths:
        with zipfile.ZipFile(path) as archive:
            (name,) = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
            metadata = email.message_from_bytes(archive.read(name))
        found[metadata["Name"].lower()] = (metadata["Name"], metadata["Version"], _license(metadata))
    return [found[name] for name in sorted(found)]


def _license(metadata: email.message.Message) -> str:
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    if metadata["License"] and "\n" not in metadata["License"]:
        return str(metadata["License"])
    classifiers = [str(each) for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    return " or ".join(each.rpartition(" :: ")[2] for each in classifiers) or "see its metadata"
