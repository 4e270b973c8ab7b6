"""A timeline as SVG: a waterfall with nothing in it that must be fetched.

Colours follow the reader's choice of light or dark. Every bar has a title, so a pointer and a screen
reader are told its name, duration and error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from noded.cli.table import printable
from noded.cli.timeline_rows import category, duration
from noded.model.timeline import Phase, Row, rows

WIDTH = 1120
_LABELS = 300  # width of the names
_NUMBERS = 84  # width of the durations
_ROW = 24
_AXIS = 34
_SPACE = 28  # between two phases
_TICKS = 6
_LABEL_CHARACTERS = 42

STYLE = """
.timeline { font: 13px ui-sans-serif, system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif;
  --ink: #1c2430; --soft: #5b6675; --line: #e3e7ed; --band: #f6f8fa; --call: #3f5570; --network: #8a4fbf;
  --image: #1f74d1; --runtime: #1b8a5a; --other: #a86b00; --wait: #9aa5b3; --gap: #c3cad3; --error: #d1344b; }
@media (prefers-color-scheme: dark) { .timeline { --ink: #e6eaf0; --soft: #9aa6b5; --line: #2a323d;
  --band: #1a2029; --call: #7f9cc0; --network: #bf8cf0; --image: #5aa7f7; --runtime: #45c48b; --other:
  #e0a63a; --wait: #66717f; --gap: #465160; --error: #ff6b7f; } }
.timeline text { fill: var(--ink); } .timeline .soft { fill: var(--soft); }
.timeline .number { text-anchor: end; font-variant-numeric: tabular-nums; fill: var(--soft); }
.timeline .whole { font-weight: 600; } .timeline .tick { stroke: var(--line); }
.timeline .band { fill: var(--band); } .timeline .axis { text-anchor: middle; font-size: 11px; }
.timeline .call { fill: var(--call); } .timeline .network { fill: var(--network); }
.timeline .image { fill: var(--image); } .timeline .runtime { fill: var(--runtime); }
.timeline .other { fill: var(--other); } .timeline .wait { fill: var(--wait); }
.timeline .gap { fill: var(--gap); }
.timeline .divided { opacity: 0.5; }
.timeline rect.error { fill: var(--error); } .timeline text.error { fill: var(--error); }
"""


def picture(phases: Sequence[Phase]) -> str:
    """A file of its own, phases below each other."""
    parts, top = [], 0.0
    for phase in phases:
        drawn = list(_drawn(phase, top))
        parts += drawn
        top += height(phase) + _SPACE
    total = max(1.0, top - _SPACE)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="timeline" viewBox="0 0 {WIDTH} {total:.0f}" '
        f'width="{WIDTH}" height="{total:.0f}" role="img" aria-label="timeline of a pod">\n'
        f"<style>{STYLE}\n@media (prefers-color-scheme: dark) {{ svg {{ background: #12161c; }} }}</style>\n"
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def inline(phase: Phase, label: str) -> str:
    """A picture of one phase for a page that has `STYLE`."""
    return (
        f'<svg class="timeline" viewBox="0 0 {WIDTH} {height(phase):.0f}" role="img" '
        f'aria-label="{_text(label)}">\n' + "\n".join(_drawn(phase, 0.0)) + "\n</svg>"
    )


def height(phase: Phase) -> float:
    """Of the picture of one phase."""
    return _AXIS + _ROW * sum(1 for _ in rows(phase)) + 6


def _drawn(phase: Phase, top: float) -> Iterator[str]:
    listed = list(rows(phase))
    total_ns = max(1, phase.end_ns - phase.start_ns)
    room = WIDTH - _LABELS - _NUMBERS
    bottom = top + _AXIS + _ROW * len(listed)

    def across(at_ns: int) -> float:
        return _LABELS + room * (at_ns - phase.start_ns) / total_ns

    for number, row in enumerate(listed):
        if row.depth == 0:
            y = top + _AXIS + _ROW * number
            yield f'<rect class="band" x="0" y="{y:.1f}" width="{WIDTH}" height="{_ROW}" rx="4"/>'
    for at_ns in ticks(total_ns):
        x = across(phase.start_ns + at_ns)
        yield f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{top + _AXIS - 8:.1f}" y2="{bottom:.1f}"/>'
        said = duration(at_ns) if at_ns else "0"
        yield f'<text class="axis soft" x="{x:.1f}" y="{top + _AXIS - 14:.1f}">{said}</text>'
    for number, row in enumerate(listed):
        yield _bar(row, top + _AXIS + _ROW * number, across(row.start_ns), across(row.end_ns))


def _bar(row: Row, y: float, left: float, right: float) -> str:
    name = printable(row.name)
    cut = name if len(name) <= _LABEL_CHARACTERS else f"{name[: _LABEL_CHARACTERS - 1]}…"
    kind = category(row) + (" error" if row.error else "")
    kind += " divided" if row.divided else ""
    weight = "whole" if row.depth == 0 and not row.gap else "soft" if row.gap else ""
    failed = " error" if row.error else ""
    high = 14 if row.depth == 0 and not row.gap else 10 if not row.gap else 4
    took = duration(row.end_ns - row.start_ns)
    said = f"{name}: {took}"
    said += f", failed: {printable(row.error)}" if row.error else ""
    said += ", unfinished" if row.unfinished else ""
    said += "".join(f", {key} {value}" for key, value in row.attributes.items())
    return (
        f"<g><title>{_text(said)}</title>"
        f'<rect x="0" y="{y:.1f}" width="{WIDTH}" height="{_ROW}" fill="none" pointer-events="all"/>'
        f'<text class="{weight}{failed}" x="{10 + 16 * row.depth}" y="{y + 16:.1f}">{_text(cut)}</text>'
        f'<rect class="{kind}" x="{left:.1f}" y="{y + (_ROW - high) / 2:.1f}" '
        f'width="{max(1.5, right - left):.1f}" height="{high}" rx="2"/>'
        f'<text class="number" x="{WIDTH - 8}" y="{y + 16:.1f}">{took}</text></g>'
    )


def ticks(total_ns: int) -> list[int]:
    """Some round instants from 0 to the end."""
    rough = total_ns / _TICKS
    power = 10 ** math.floor(math.log10(max(1.0, rough)))
    step = int(next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough))
    return list(range(0, total_ns + 1, max(1, step)))


def _text(text: str) -> str:
    return escape(printable(text))
