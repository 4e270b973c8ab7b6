"""The plot: one bar per target, as long as its ratio, with a mark where it should end."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.targets import Verdict

_LABEL, _BAR, _NUMBER = 470, 360, 60  # pixels
_LINE = 22
_LONGEST = 3.0  # ratios above it are cut off


def svg(found: Sequence[Verdict]) -> str:
    """A picture of all targets. Green bars reach theirs."""
    width, height = _LABEL + _BAR + _NUMBER, _LINE * (len(found) + 2)
    scale = _BAR / _LONGEST
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LABEL}" y="15">ratio, lower is better; the black mark is the target</text>',
    ]
    for number, one in enumerate(found):
        y = _LINE * (number + 1) + 4
        name = f"{one.row}{' CPU' if one.target.cpu else ''}: {one.target.subject} / {one.target.against}"
        length = min(one.ratio, _LONGEST) * scale
        mark = _LABEL + min(one.target.at_most, _LONGEST) * scale
        color = "#3a9b57" if one.met else "#c8503c"
        parts += [
            f'<text x="{_LABEL - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="{_LINE - 6}" fill="{color}"/>',
            f'<rect x="{mark - 1:.1f}" y="{y - 2}" width="2" height="{_LINE - 2}" fill="#000"/>',
            f'<text x="{_LABEL + _BAR + 6}" y="{y + 12}">{one.ratio:.2f}</text>',
        ]
    x = _LABEL + scale
    parts.append(
        f'<line x1="{x:.1f}" y1="{_LINE}" x2="{x:.1f}" y2="{height - 8}" stroke="#888" stroke-dasharray="3"/>'
    )
    return "\n".join([*parts, "</svg>", ""])
