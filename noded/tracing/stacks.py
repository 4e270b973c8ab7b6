"""Where every task and every thread is, as text: what SIGUSR1 asks for.

Secrets are safe: in it are names of functions, lines of files and ids of calls, no values.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

import structlog
import trio

from noded.host import files

_KEPT = 10  # files in the directory; the oldest ones go
_PACKAGES = f"{Path(__file__).resolve().parents[2]}/"  # what paths are shown relative to


def write(directory: Path, name: str, root: trio.lowlevel.Task | None) -> Path:
    """Write a new file stacks-NAME.txt that only root can read; return its path. Blocks for milliseconds.

    Args:
        name: a time, so that names sort by age.
        root: the first trio task, None while there is none. No trio task may be running.

    Raises: OSError.
    """
    path = directory / f"stacks-{name}.txt"
    files.publish(path, describe(root, asyncio.all_tasks()).encode(errors="replace"), 0o600, durable=False)
    for old in sorted(directory.glob("stacks-*.txt"))[:-_KEPT]:
        old.unlink(missing_ok=True)
    return path


def describe(root: trio.lowlevel.Task | None, tasks: Iterable[asyncio.Task[object]]) -> str:
    """The tree of trio tasks, the asyncio tasks, and the threads."""
    lines = ["trio tasks", *(_trio_task(root, 1) if root is not None else ["  none"]), "", "asyncio tasks"]
    for task in sorted(tasks, key=asyncio.Task.get_name):
        lines.append(f"  {task.get_name()}")
        lines += [f"    {_place(frame, frame.f_lineno)}" for frame in task.get_stack()]
    lines += ["", "threads"]
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for number, frame in sys._current_frames().items():
        lines.append(f"  {names.get(number, 'unknown to Python')}")
        lines += [f"    {_place(one, line)}" for one, line in traceback.walk_stack(frame)][::-1]
    return "\n".join(lines) + "\n"


def _trio_task(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    indent = "  " * depth
    words = task.context.run(structlog.contextvars.get_contextvars)
    yield " ".join((f"{indent}{task.name}", *(f"{key}={value}" for key, value in words.items())))
    for frame, line in task.iter_await_frames():
        yield f"{indent}  {_place(frame, line)}"
        if frame.f_globals["__name__"].startswith("trio."):
            break  # what it is that is waited for; below is how trio waits
    for nursery in task.child_nurseries:
        for child in sorted(nursery.child_tasks, key=lambda one: one.name):
            yield from _trio_task(child, depth + 2)


def _place(frame: FrameType, line: int | None) -> str:
    path = frame.f_code.co_filename.removeprefix(_PACKAGES).rpartition("/site-packages/")[2]
    return f"{path}:{line} {frame.f_code.co_qualname}"
