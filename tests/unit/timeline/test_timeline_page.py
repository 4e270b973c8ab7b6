"""The page and the picture: complete, harmless, and seen in a real browser."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from timeline_values import failed, started

from noded.cli.timeline import document, waterfall
from noded.cli.timeline_page import page
from noded.cli.timeline_picture import picture, ticks
from noded.cli.timeline_rows import duration

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIGHT, DARK = "#ffffff", "#12161c"
NETWORK = {LIGHT: "#8a4fbf", DARK: "#bf8cf0"}
ERROR = {LIGHT: "#d1344b", DARK: "#ff6b7f"}


def written(one) -> str:
    return page([(one, one.phases)])


def test_the_page_fetches_nothing_and_runs_nothing():
    text = written(failed())
    tags: list[tuple[str, dict]] = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            tags.append((tag, dict(attrs)))

    Reader().feed(text)
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "img", "iframe", "object", "embed"})
    assert not any(key.startswith("on") or key in ("src", "href") for _, attrs in tags for key in attrs)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_the_page_says_in_words_what_it_draws():
    text = written(started())
    for name in ("RunPodSandbox", "CNI bridge ADD", "inflate and extract", "StartContainer main", "client"):
        assert text.count(f">{name}<") >= 2, "in the picture and in the table"
    assert '<html lang="en">' in text
    assert 'role="img" aria-label="Start: done in 1.16 s"' in text
    assert "Last steps: rootfs → spec → runtime → runc create" in written(failed())


def test_the_picture_is_well_formed_and_its_bars_stand_where_time_says():
    root = ElementTree.fromstring(picture(started().phases))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    bars = {
        group[0].text.partition(":")[0]: group[3].attrib
        for group in root
        if group.tag.endswith("}g")
    }  # fmt: skip
    total, room = 1160, 1120 - 300 - 84
    assert float(bars["manifest"]["x"]) == pytest.approx(300 + room * 96 / total, abs=0.1)
    assert float(bars["manifest"]["width"]) == pytest.approx(room * 114 / total, abs=0.1)


def test_the_terminal_never_overflows_its_columns():
    for columns in (40, 80, 200):
        for line in waterfall(started().phases[0], columns):
            assert sum(len(text) for text, _ in line) <= columns


def test_durations_have_three_digits_and_ticks_are_round():
    assert [duration(ns) for ns in (812_000, 1_200_000, 34_500_000, 412_000_000, 6_020_000_000)] == [
        "812 µs", "1.20 ms", "34.5 ms", "412 ms", "6.02 s",
    ]  # fmt: skip
    assert ticks(1_160_000_000) == [0, 200_000_000, 400_000_000, 600_000_000, 800_000_000, 1_000_000_000]
    assert ticks(1) == [0, 1]


def test_json_has_every_step():
    (pod,) = document([started()])["pods"]
    (phase,) = pod["phases"]
    assert [call["method"] for call in phase["calls"]][-1] == "StartContainer"
    assert phase["calls"][1]["steps"][1]["steps"][1]["steps"][0]["name"] == "wait"


@pytest.mark.skipif(CHROMIUM is None, reason="NOT CHECKED IN A BROWSER: chromium is not installed")
@pytest.mark.parametrize(("scheme", "ground"), [("1", LIGHT), ("0", DARK)], ids=["light", "dark"])
def test_a_browser_shows_it_in_the_readers_colours(tmp_path: Path, scheme: str, ground: str):
    assert CHROMIUM is not None
    (tmp_path / "page.html").write_text(written(failed()))
    width, height = 1240, 680
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={scheme}",
            f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = pixels((tmp_path / "page.png").read_bytes())
    assert (len(rows[0]), len(rows)) == (width, height)
    seen = Counter(pixel for row in rows for pixel in row)
    assert seen.most_common(1)[0][0] == ground
    # CNI's bar: 54 of 190 ms, 10 units high in a picture of 1120 that is drawn 1152 pixels wide.
    scale = (1200 - 48) / 1120
    assert widest(rows, NETWORK[ground]) == pytest.approx((1120 - 384) * 54 / 190 * scale, rel=0.02)
    assert widest(rows, ERROR[ground]) == pytest.approx((1120 - 384) * 120 / 190 * scale, rel=0.02)


def widest(rows: list[list[str]], colour: str) -> int:
    """The longest run of a colour in any row of pixels."""
    marked = ("".join("x" if pixel == colour else "." for pixel in row) for row in rows if colour in row)
    return max((len(run) for line in marked for run in re.findall("x+", line)), default=0)


def pixels(png: bytes) -> list[list[str]]:
    """Colours of an 8-bit, not interlaced PNG with or without alpha (PNG 1.2, sections 6 and 9)."""
    at, data, head = 8, b"", b""
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        head, data = (body, data) if kind == b"IHDR" else (head, data + body if kind == b"IDAT" else data)
        at += 12 + length
    width, height, depth, form = struct.unpack(">IIBB", head[:10])
    assert (depth, head[12]) == (8, 0)
    size = {2: 3, 6: 4}[form]
    raw, line, rows = zlib.decompress(data), bytearray(width * size), []
    for number in range(height):
        start = number * (width * size + 1)
        line = unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * size]), line, size)
        rows.append([f"#{line[i]:02x}{line[i + 1]:02x}{line[i + 2]:02x}" for i in range(0, len(line), size)])
    return rows


def unfiltered(kind: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    for i in range(len(line)):
        left = line[i - size] if i >= size else 0
        up, corner = above[i], above[i - size] if i >= size else 0
        if kind == 4:
            estimate = left + up - corner
            guess = min((left, up, corner), key=lambda one: abs(estimate - one))
        else:
            guess = (0, left, up, (left + up) // 2)[kind]
        line[i] = (line[i] + guess) & 0xFF
    return line
