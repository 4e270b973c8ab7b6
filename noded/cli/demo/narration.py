"""What the demo shows: numbered steps, each with what came of it and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager


class Narration:
    """Prints steps to standard output, in colour on a terminal."""

    def __init__(self) -> None:
        self._number = 0
        self._colour = sys.stdout.isatty()

    def title(self, text: str) -> None:
        print(self._style(text, "1"), flush=True)

    @contextmanager
    def step(self, text: str) -> Generator[None]:
        """Announce a step, run the body, and tell its duration; a failure is marked and passes on."""
        self._number += 1
        print(f"\n{self._style(f'{self._number:2}', '1;36')}  {self._style(text, '1')}", flush=True)
        start = time.monotonic()
        try:
            yield
        except BaseException:
            print(f"    {self._style('failed', '31')}", flush=True)
            raise
        duration_ms = (time.monotonic() - start) * 1000
        print(f"    {self._style(f'done in {duration_ms:.0f} ms', '32')}", flush=True)

    def say(self, label: str, text: str) -> None:
        """One fact of the current step."""
        print(f"    {label:<10} {text}", flush=True)

    def quote(self, text: str) -> None:
        """Lines that another program wrote."""
        for line in text.splitlines():
            print(f"    {self._style('│', '2')} {_printable(line)}", flush=True)

    def _style(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour else text


def _printable(line: str) -> str:
    return "".join(
        character if character.isprintable() or character == "\t" else "\N{REPLACEMENT CHARACTER}"
        for character in line
    )
