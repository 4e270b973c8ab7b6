"""What packages.toml and pyproject.toml say, and what date everything bears."""

from __future__ import annotations

import os
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PACKAGING = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGING.parent


@dataclass(frozen=True, slots=True)
class Relations:
    """Names of other packages, in the syntax of one package format."""

    requires: tuple[str, ...] = ()
    recommends: tuple[str, ...] = ()
    suggests: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Package:
    """One package as packages.toml describes it.

    Args:
        project: directory with the pyproject.toml of what it installs.
        vendored: whether it also holds the locked wheels; if so it is for one architecture.
        files: paths to install, with their sources relative to the packaging directory.
        configuration: installed paths that an administrator may change.
    """

    name: str
    project: Path
    vendored: bool
    summary: str
    description: str
    deb: Relations
    rpm: Relations
    files: Mapping[str, str] = field(default_factory=dict)
    directories: tuple[str, ...] = ()
    configuration: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """What all packages share.

    Args:
        pythons: versions that wheels are taken for.
        glibc: the newest C library that a wheel may want.
        build_only: locked distributions that no package holds.
        omit: patterns of members of wheels that no package holds.
        epoch: the date that everything bears, seconds since 1970.
    """

    version: str
    revision: int
    maintainer: str
    license: str
    pythons: tuple[str, ...]
    glibc: tuple[int, int]
    build_only: frozenset[str]
    omit: tuple[str, ...]
    packages: tuple[Package, ...]
    epoch: int

    @property
    def full_version(self) -> str:
        return f"{self.version}-{self.revision}"


def load(revision: int | None = None) -> Project:
    """Read the description; `revision` replaces the one in it."""
    table = tomllib.loads((PACKAGING / "packages.toml").read_text(encoding="utf-8"))
    metadata = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    major, minor = table["glibc"].split(".")
    return Project(
        version=metadata["version"],
        revision=table["revision"] if revision is None else revision,
        maintainer=table["maintainer"],
        license=table["license"],
        pythons=tuple(table["pythons"]),
        glibc=(int(major), int(minor)),
        build_only=frozenset(table["build_only"]),
        omit=tuple(table["omit"]),
        packages=tuple(_package(name, each) for name, each in table["packages"].items()),
        epoch=source_date_epoch(),
    )


def _package(name: str, table: Mapping[str, Any]) -> Package:
    def relations(kind: str, requires: str) -> Relations:
        part = table.get(kind, {})
        return Relations(*(tuple(part.get(key, ())) for key in (requires, "recommends", "suggests")))

    return Package(
        name=name,
        project=REPOSITORY / table["project"],
        vendored=table.get("vendored", False),
        summary=table["summary"],
        description=table["description"].strip(),
        deb=relations("deb", "depends"),
        rpm=relations("rpm", "requires"),
        files=table.get("files", {}),
        directories=tuple(table.get("directories", ())),
        configuration=tuple(table.get("configuration", ())),
    )


def source_date_epoch() -> int:
    """Seconds since 1970 that everything bears: $SOURCE_DATE_EPOCH, else the date of the commit.

    Raises: SystemExit where there is neither. Spec: reproducible-builds.org/specs/source-date-epoch.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    try:
        shown = subprocess.run(
            ["git", "-c", "safe.directory=*", "log", "-1", "--format=%ct"],
            cwd=REPOSITORY, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit("not a git clone: set SOURCE_DATE_EPOCH to the date of these sources") from None
    return int(shown.stdout)
