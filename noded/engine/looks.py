"""Looks at paths that may never answer: one thread for a path, however many ask about it.

A thread in stat(2) on a dead network file system can be neither cancelled nor killed. It is left
behind, outside of trio's thread limit: enough of them would take that up and stop everything else.
Whoever asks again meanwhile waits for the look in progress, so that retries add no threads.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import trio
from outcome import Error, Outcome

from noded.errors import Unavailable

_MOST = 500  # paths being looked at; a node has some hundred pods


class _Look:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: str | BaseException = ""


class Looks:
    """The looks in progress, by path."""

    def __init__(self) -> None:
        self._looks: dict[str, _Look] = {}

    async def ask(self, path: str, look: Callable[[str], str]) -> str:
        """Return `look(path)`, from a thread.

        Raises: what it raises; Unavailable when too many paths of the node do not answer.
        Cancellation: safe; the look goes on without us.
        """
        found = self._looks.get(path)
        if found is None:
            if len(self._looks) >= _MOST:
                raise Unavailable(f"{_MOST} paths on this node do not answer, {path} must wait: see dmesg")
            found = self._looks[path] = _Look()
            token = trio.lowlevel.current_trio_token()
            trio.lowlevel.start_thread_soon(partial(look, path), partial(self._deliver, token, path))
        await found.done.wait()
        if isinstance(found.answer, BaseException):
            raise found.answer
        return found.answer

    def _deliver(self, token: trio.lowlevel.TrioToken, path: str, result: Outcome[str]) -> None:
        """Called in the thread."""
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self._finish, path, result)

    def _finish(self, path: str, result: Outcome[str]) -> None:
        found = self._looks.pop(path)
        found.answer = result.error if isinstance(result, Error) else result.unwrap()
        found.done.set()
