"""Which commit the tests run on, for the tables that they write."""

from __future__ import annotations

import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
# Files that tests write: they make no tree another one.
WRITTEN = (
    "RESULTS.md",
    "tests/crash/FIGURES.md",
    "tests/crash/MATRIX.md",
    "tests/fuzz/RESULTS.md",
    "tests/soak/RESULTS.md",
)


def commit_of_tree() -> tuple[str, bool]:
    """The commit, "unknown" outside of git, and whether the tree is just that."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout

    try:
        changed = [line[3:] for line in git("status", "--porcelain").splitlines()]
        return git("rev-parse", "--short=12", "HEAD").strip(), not set(changed) - set(WRITTEN)
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def describe_tree() -> str:
    """The commit, marked when the tree has changes."""
    commit, clean = commit_of_tree()
    return commit if clean else f"{commit} with uncommitted changes"
