#!/usr/bin/python3 -IBS
"""keep DIRECTORY: before noded is removed, put there what a later purge needs; print how many pods are left.

A removal leaves pods running, so a purge that comes later must be able to tear them down in order, and has
no noded by then, nor its configuration (dpkg removes both first). So this keeps the modules for this Python,
as hard links where the file system allows it, the configuration in force, and `purge` itself:

    /usr/bin/python3 -IBS DIRECTORY/purge --config DIRECTORY/noded.toml

Where no pod is left, and everything is in the directories that a purge knows without a configuration,
nothing is kept. Exit status: 0, or 1 with a message when something could not be kept.
"""

import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import noded_start

noded_start.prepare()

from noded import config_text, settings
from noded.config import Config
from noded.errors import NodedError
from noded.model.paths import Layout

NAMES = ("noded_start.py", "purge", "common", noded_start.directory())


def main() -> int:
    if len(sys.argv) != 2:
        sys.exit("usage: keep DIRECTORY")
    target = Path(sys.argv[1])
    try:
        config = settings.load()
    except NodedError as error:
        print(f"noded: {error}; the default configuration is kept", file=sys.stderr)
        config = Config()
    pods = recorded_pods(Layout(config.root, config.state).database)
    print(pods)
    shutil.rmtree(target, ignore_errors=True)
    if not pods and places(config) == places(Config()):
        return 0
    unfinished = target.with_name(f".{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True, mode=0o700)
        for name in NAMES:
            copy(Path(HERE, name), unfinished / name)
        (unfinished / "noded.toml").write_text(config_text.render(config), encoding="utf-8")
        unfinished.rename(target)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        print(f"noded: what a purge needs cannot be kept: {error}", file=sys.stderr)
        return 1
    return 0


def places(config: Config) -> "tuple[Path | None, ...]":
    """What a purge must know: the directories that are to be removed."""
    return config.root, config.state, config.images.root


def recorded_pods(database: Path) -> int:
    """How many pods noded has, those that it only owes something too; 1 where it cannot be said."""
    if not database.exists():
        return 0
    try:
        with closing(sqlite3.connect(database, timeout=5)) as connection:
            return int(connection.execute("SELECT count(*) FROM sandboxes").fetchone()[0])
    except sqlite3.Error:
        return 1


def copy(source: Path, target: Path) -> None:
    """Link a file or the files of a tree; copy them where the target is on another file system."""
    if source.is_dir():
        shutil.copytree(source, target, copy_function=link)
    else:
        link(source, target)


def link(source: "str | Path", target: "str | Path") -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


if __name__ == "__main__":
    sys.exit(main())
