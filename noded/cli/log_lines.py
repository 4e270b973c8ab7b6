"""CRI log lines: `2026-01-02T03:04:05.678901234Z stdout F text`.

The format is k8s.io/cri-client's `pkg/logs`: time, stream, tags, content, one blank between. The
first tag is P (a part, the line goes on in the next entry of this stream) or F (full, the line
ends here).
"""

from __future__ import annotations

from dataclasses import dataclass

from noded.errors import DataLoss

_STREAMS = {b"stdout", b"stderr"}


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry; `content` has no newline."""

    time: str
    stream: str
    partial: bool
    content: bytes


def parse(line: bytes) -> LogEntry:
    """Parse one line without its newline. Raises DataLoss for anything else than a CRI log line."""
    time, _, rest = line.partition(b" ")
    stream, _, rest = rest.partition(b" ")
    tags, blank, content = rest.partition(b" ")
    tag = tags.split(b":")[0]
    if not time or stream not in _STREAMS or tag not in {b"P", b"F"} or not (blank or tags):
        raise DataLoss(f"not a line of a CRI log: {line[:80]!r}")
    return LogEntry(time.decode(errors="replace"), stream.decode(), tag == b"P", content)


class Splitter:
    """Cuts a growing byte stream into lines; the unfinished rest waits for the next bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Add bytes and return the lines that they complete, without newlines."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines


class Renderer:
    """Turns entries into what the container wrote, stdout and stderr apart."""

    def __init__(self, *, timestamps: bool = False) -> None:
        self._timestamps = timestamps
        self._inside: dict[str, bool] = {}  # stream -> its last entry was partial

    def render(self, entry: LogEntry) -> bytes:
        """The bytes to print for one entry on its stream."""
        starts = not self._inside.get(entry.stream, False)
        self._inside[entry.stream] = entry.partial
        prefix = f"{entry.time} ".encode() if self._timestamps and starts else b""
        return prefix + entry.content + (b"" if entry.partial else b"\n")
