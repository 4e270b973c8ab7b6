"""Builds packages: `python -m noded_packaging deb rpm`; `wheels` only downloads what they need."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

from noded_packaging import build_deb, build_rpm, project, wheels
from noded_packaging.project import REPOSITORY, Package, Project

Build = Callable[[Project, Package, str, Path, Path], Path]
_FORMATS: dict[str, Build] = {"deb": build_deb.build, "rpm": build_rpm.build}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build all packages, or those named, and print their paths."""
    parser = argparse.ArgumentParser(prog="noded_packaging", description=__doc__)
    parser.add_argument("formats", nargs="+", choices=("deb", "rpm", "wheels"), help="what to make")
    parser.add_argument("--package", action="append", help="only this one (more than once: only these)")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "dist", help="where packages go")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "build" / "packages", help="kept downloads")
    parser.add_argument("--machine", default=platform.machine(), choices=sorted(build_deb.ARCHITECTURES))
    parser.add_argument("--revision", type=int, help="of the package; default: that of packages.toml")
    chosen = parser.parse_args(arguments)
    described = project.load(chosen.revision)
    names = [package.name for package in described.packages]
    for name in chosen.package or ():
        if name not in names:
            parser.error(f"--package {name}: there are {', '.join(names)}")
    for kind in chosen.formats:
        if kind == "wheels":  # only the downloads, for a build without a network later
            wheels.download(described, chosen.machine, chosen.work / "wheels")
            continue
        for package in described.packages:
            if chosen.package is None or package.name in chosen.package:
                print(_FORMATS[kind](described, package, chosen.machine, chosen.work, chosen.output))


if __name__ == "__main__":
    main()
