"""The locked wheels for every supported Python: downloaded once, checked by hash, and unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from packaging.markers import Marker
from packaging.utils import canonicalize_name, parse_wheel_filename

from noded_packaging.project import REPOSITORY, Project
from noded_packaging.tree import Tree

LOCK = REPOSITORY / "requirements.lock"
COMMON = "common"  # directory of what every supported Python shares
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^\s;]+)(?:\s*;\s*(?P<marker>[^\\]+?))?\s*\\?\n")
_MANYLINUX = re.compile(r"manylinux_(\d+)_(\d+)_")
_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


def requirements(lock: str, python: str, machine: str, build_only: Iterable[str]) -> str:
    """Return the part of a lock file that runs on one Python of Linux, without its markers.

    pip would evaluate markers for the Python that runs pip, not for the one that it downloads for.
    """
    environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }
    left_out = {canonicalize_name(name) for name in build_only}
    chosen = []
    for entry in re.split(r"\n(?=[A-Za-z0-9])", lock):
        match = _ENTRY.match(entry)
        if match is None or canonicalize_name(match["name"]) in left_out:
            continue
        if match["marker"] and not Marker(match["marker"]).evaluate(environment):
            continue
        hashes = re.findall(r"--hash=\S+", entry)
        chosen.append(" ".join([f"{match['name']}=={match['version']}", *hashes]))
    return "\n".join(chosen) + "\n"


def download(project: Project, machine: str, cache: Path) -> dict[str, list[Path]]:
    """Return the wheels for each supported Python, e.g. {"3.11": [...]}.

    What is in `cache` for the same lock is not downloaded again. pip asks the package index that it
    is configured for and compares every file with the hashes of the lock.
    """
    lock = LOCK.read_text(encoding="utf-8")
    found = {}
    for python in project.pythons:
        wanted = requirements(lock, python, machine, project.build_only)
        options = _options(project, python, machine)
        key = hashlib.sha256("\n".join([wanted, *options]).encode()).hexdigest()[:16]
        directory = cache / f"{machine}-{abi(python)}-{key}"
        if not directory.is_dir():
            _download(wanted, options, directory)
        found[python] = sorted(directory.glob("*.whl"))
    return found


def abi(python: str) -> str:
    """The ABI tag of a CPython version, which names its directory too: 3.11 is cp311."""
    return "cp" + python.replace(".", "")


def _options(project: Project, python: str, machine: str) -> list[str]:
    major, newest = project.glibc
    platforms = [f"manylinux_{major}_{minor}_{machine}" for minor in range(newest, 4, -1)]
    platforms += [f"{name}_{machine}" for name in _LEGACY]
    return [
        f"--python-version={python}",
        "--implementation=cp",
        *(f"--abi={tag}" for tag in (abi(python), "abi3", "none")),
        *(f"--platform={platform}" for platform in platforms),
    ]


def _download(wanted: str, options: list[str], directory: Path) -> None:
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    listed = unfinished / "requirements.txt"
    listed.write_text(wanted)
    print(f"downloading wheels for {options[0].partition('=')[2]}", file=sys.stderr, flush=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", "download",
            "--no-deps", "--only-binary=:all:", "--require-hashes", *options,
            f"--requirement={listed}", f"--dest={unfinished}",
        ],
        check=True,
    )  # fmt: skip
    unfinished.rename(directory)


def build(project_directory: Path, work: Path, epoch: int) -> Path:
    """Build the wheel of noded or of a plugin from a copy of its sources; nothing is downloaded."""
    shutil.rmtree(work, ignore_errors=True)
    sources = work / "sources"
    for path in sorted(project_directory.iterdir()):
        if path.name in ("pyproject.toml", "README.md", "LICENSE"):
            sources.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, sources)
        elif path.is_dir() and path.name.startswith("noded") and not path.name.endswith(".egg-info"):
            shutil.copytree(path, sources / path.name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel", "--no-index",
            "--no-deps", "--no-build-isolation", f"--wheel-dir={work}", str(sources),
        ],
        check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
    )  # fmt: skip
    (wheel,) = work.glob("*.whl")
    return wheel


def unpack(tree: Tree, wheel: Path, directory: str, omit: Iterable[str] = ()) -> None:
    """Put the modules and metadata of a wheel below `directory`, without its scripts and `omit`."""
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            place = _place(name)
            if place is not None and not any(fnmatchcase(place, pattern) for pattern in omit):
                tree.add(f"{directory}/{place}", archive.read(name))


def _place(name: str) -> str | None:
    """Where a member of a wheel belongs. Spec: binary distribution format, "The .data directory"."""
    if name.endswith("/"):
        return None
    top, _, rest = name.partition("/")
    if not top.endswith(".data"):
        return name
    scheme, _, place = rest.partition("/")
    return place if scheme in ("purelib", "platlib") else None


def distribute(wheels: Mapping[str, list[Path]]) -> dict[str, list[Path]]:
    """Sort wheels into directories: the same file for every Python is common, the rest is not."""
    names = [{path.name for path in each} for each in wheels.values()]
    shared = set.intersection(*names)
    placed = {COMMON: [path for path in next(iter(wheels.values())) if path.name in shared]}
    for python, paths in wheels.items():
        placed[abi(python)] = [path for path in paths if path.name not in shared]
    return placed


def glibc_needed(paths: Iterable[Path]) -> tuple[int, int]:
    """The oldest C library that all these wheels work with; (0, 0) when none is compiled."""
    return max((_oldest_glibc(path) for path in paths), default=(0, 0))


def _oldest_glibc(path: Path) -> tuple[int, int]:
    platforms = [tag.platform for tag in parse_wheel_filename(path.name)[3]]
    versions = [
        (int(match[1]), int(match[2])) if (match := _MANYLINUX.match(platform)) else _LEGACY[legacy]
        for platform in platforms
        if (legacy := platform.partition("_")[0]) in _LEGACY or _MANYLINUX.match(platform)
    ]
    return min(versions, default=(0, 0))
