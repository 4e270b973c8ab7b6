"""A timeline as a page: one file, no script, nothing to fetch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape

from noded.cli.quantities import short_id
from noded.cli.table import printable
from noded.cli.timeline_picture import STYLE, inline
from noded.cli.timeline_rows import duration
from noded.model.timeline import Kind, Phase, Timeline, last_steps, rows, slowest

_PAGE_STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2430; --soft: #5b6675; --line: #e3e7ed;
  --card: #f6f8fa; --bad: #b3203a; }
@media (prefers-color-scheme: dark) { :root { --page: #12161c; --ink: #e6eaf0; --soft: #9aa6b5;
  --line: #2a323d; --card: #1a2029; --bad: #ff6b7f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1200px; padding: 32px 24px 48px; background: var(--page); color: var(--ink);
  font: 15px/1.5 ui-sans-serif, system-ui, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; } h2 { font-size: 18px; margin: 32px 0 12px; }
.soft { color: var(--soft); } code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 20px 0 8px; padding: 0; list-style: none; }
.cards li { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 16px; }
.cards b { display: block; font-size: 20px; font-variant-numeric: tabular-nums; }
.failure { border-left: 4px solid var(--bad); background: var(--card); padding: 10px 16px; margin: 16px 0;
  border-radius: 0 8px 8px 0; overflow-wrap: anywhere; } .failure b { color: var(--bad); }
svg.timeline { width: 100%; height: auto; min-width: 720px; display: block; } .scroll { overflow-x: auto; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0 0; padding: 0; list-style: none;
  color: var(--soft); font-size: 13px; } svg.swatch { min-width: 0; width: 12px; height: 12px;
  margin-right: 6px; display: inline; }
details { margin-top: 16px; } summary { cursor: pointer; color: var(--soft); }
table { border-collapse: collapse; width: 100%; margin-top: 8px; font-size: 13px; }
th, td { text-align: left; padding: 3px 12px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
"""

_LEGEND = (
    ("call", "call of the client"),
    ("gap", "the client's own time"),
    ("network", "network"),
    ("image", "image and root file system"),
    ("runtime", "runtime and monitor"),
    ("other", "noded"),
    ("wait", "waiting"),
    ("error", "failed"),
)

_HEADINGS = {Kind.START: "Start", Kind.LATER: "Later", Kind.END: "End"}


def page(parts: Sequence[tuple[Timeline, Sequence[Phase]]]) -> str:
    """The whole file.

    Args:
        parts: at least one timeline, each with the phases to show.
    """
    first = parts[0][0].subject
    body = "\n".join(line for one, phases in parts for line in _pod(one, phases))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_text(first.pod)}: timeline</title>\n<style>{_PAGE_STYLE}{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _pod(one: Timeline, phases: Sequence[Phase]) -> Iterator[str]:
    begun = datetime.fromtimestamp(one.calls[0].start_ns / 1e9, UTC)
    yield f"<h1>{_text(one.subject.pod)}</h1>"
    yield (
        f'<p class="soft">Pod sandbox <code>{_text(short_id(one.subject.sandbox_id))}</code>, begun on '
        f'<time datetime="{begun.isoformat()}">{begun:%Y-%m-%d %H:%M:%S} UTC</time></p>'
    )
    for phase in phases:
        yield from _phase(phase)


def _phase(phase: Phase) -> Iterator[str]:
    total_ns = phase.end_ns - phase.start_ns
    heading = f"{_HEADINGS[phase.kind]}: {'failed after' if phase.failed else 'done in'} {duration(total_ns)}"
    yield f"<section>\n<h2>{heading}</h2>"
    for call in phase.calls:
        if call.error:
            yield (
                f'<p class="failure"><b>{_text(call.method)} failed.</b> {_text(call.error)}<br>'
                f'<span class="soft">Last steps: {_text(" → ".join(last_steps(call)))}</span></p>'
            )
    yield '<ul class="cards">'
    yield f'<li><span class="soft">in total</span><b>{duration(total_ns)}</b></li>'
    for name, ns in slowest(phase, 4):
        yield f'<li><span class="soft">{_text(name)}</span><b>{duration(ns)}</b></li>'
    yield "</ul>"
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{heading}">'
    yield f"{inline(phase, heading)}</div>"
    yield '<ul class="legend" aria-label="colours">'
    for kind, meaning in _LEGEND:
        swatch = '<svg class="timeline swatch" viewBox="0 0 12 12" aria-hidden="true">'
        yield f'<li>{swatch}<rect class="{kind}" width="12" height="12" rx="3"/></svg>{meaning}</li>'
    yield "</ul>"
    yield "<details><summary>The same as a table</summary>\n<table><thead><tr><th>Step</th>"
    yield '<th class="number">Begins at</th><th class="number">Takes</th><th>Error</th></tr></thead><tbody>'
    for row in rows(phase):
        yield (
            f'<tr><td style="padding-left:{18 * row.depth}px">{_text(row.name)}</td>'
            f'<td class="number">{duration(row.start_ns - phase.start_ns)}</td>'
            f'<td class="number">{duration(row.end_ns - row.start_ns)}</td><td>{_text(row.error)}</td></tr>'
        )
    yield "</tbody></table></details>\n</section>"


def _text(text: str) -> str:
    return escape(printable(text))
