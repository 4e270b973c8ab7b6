"""The Grafana dashboard asks only for metrics and labels that the daemon has."""

from __future__ import annotations

import json
import re
from pathlib import Path

from noded.engine.metrics_node import NodeMetrics
from noded.tracing.export import Exporter
from noded.tracing.journal import Journal
from noded.tracing.recorder import Recorder

DASHBOARD = Path(__file__).resolve().parents[3] / "packaging/grafana/noded.json"
NAME = re.compile(r"\b((?:noded|process)_[a-z_]+)\b")
SCRAPED = ("instance", "job")  # labels that Prometheus adds
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}


class Nothing:
    overflows = 0

    def views(self):
        return []

    def observe(self, callback):
        pass


def families(tmp_path):
    recorder = Recorder(Journal(tmp_path))
    metrics = NodeMetrics(
        Nothing(), Nothing(), Nothing(), Nothing(), lambda: 0, list, recorder, Exporter("http://127.0.0.1:1")
    )
    return [one.family for one in metrics.metrics._families.values()]


def expressions():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def test_every_metric_of_the_dashboard_exists_with_its_labels(tmp_path):
    labels = {
        f"{family.name}{suffix}": {
            *family.labels,
            "instance",
            "job",
            *(["le"] if suffix == "_bucket" else []),
        }
        for family in families(tmp_path)
        for suffix in SUFFIXES.get(family.type, ("",))
    }
    asked = expressions()
    assert len(asked) > 15
    for expression in asked:
        names = set(NAME.findall(expression))
        assert names <= set(labels), expression
        by = {
            word.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for word in group.split(",")
        }
        selected = set(re.findall(r'(\w+)(?:=~|!=|!~|=)"', expression))
        for name in names:
            assert by | selected <= labels[name], expression


def test_every_metric_of_noded_is_on_the_dashboard(tmp_path):
    text = " ".join(expressions())
    absent = {family.name for family in families(tmp_path) if family.name not in text}
    own = {name for name in absent if name.startswith("noded_")}
    assert own == {"noded_events_total", "noded_threads"}, (
        "say here why one is left out: these two are details"
    )


def test_the_dashboard_has_panels_that_do_not_overlap_and_say_what_they_show():
    dashboard = json.loads(DASHBOARD.read_text())
    assert (dashboard["uid"], dashboard["title"]) == ("noded", "noded")
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
