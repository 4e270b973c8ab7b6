"""What happens to a spec after it was built, the comparison with peers, and the whole document."""

from __future__ import annotations

import copy
import json

from spec_cases import CASES

from noded.spec.explain.case import Case, build
from noded.spec.explain.document import document
from noded.spec.explain.explain import explained
from noded.spec.explain.fields import fields
from noded.spec.explain.peers import PEERS, differences
from noded.spec.explain.sources import Kind, Source
from noded.spec.explain.stages import after_stages, as_found

PLAIN = Case(CASES["plain"])
SPEC = build(PLAIN)
OWN = explained(PLAIN)


def changed(**process):
    spec = copy.deepcopy(SPEC)
    spec["process"].update(process)
    return spec


def by_name(found):
    return {one.name: one for one in found}


def test_the_last_who_changed_a_field_is_its_origin_and_those_before_are_told_too():
    first, second = Source(Kind.PLUGIN, "one"), Source(Kind.NRI, "two")
    found = by_name(after_stages(OWN, [(first, changed(cwd="/a")), (second, changed(cwd="/b"))]))
    cwd = found["process.cwd"]
    assert (cwd.value, cwd.origin, cwd.also[0]) == ("/b", second, first)
    assert cwd.also[1].name == "WorkingDir"


def test_a_stage_that_changes_nothing_takes_no_credit():
    assert after_stages(OWN, [(Source(Kind.PLUGIN, "idle"), SPEC)]) == OWN


def test_a_field_that_a_stage_takes_away_is_gone():
    without = copy.deepcopy(SPEC)
    del without["process"]["oomScoreAdj"]
    assert "process.oomScoreAdj" not in by_name(after_stages(OWN, [(Source(Kind.PLUGIN, "p"), without)]))


def test_what_today_would_be_different_is_said_to_be_changed():
    actual = changed(cwd="/then", extra=1)
    del actual["process"]["oomScoreAdj"]
    found, absent = as_found(OWN, actual)
    names = by_name(found)
    assert {one.name: one.value for one in found} == fields(actual)
    assert names["process.cwd"].origin.kind is Kind.CHANGED
    assert names["process.cwd"].also[0].name == "WorkingDir"
    assert names["process.extra"].origin.kind is Kind.CHANGED
    assert absent == ["process.oomScoreAdj"]


def test_peers_are_compared_where_noded_decides_and_never_where_the_request_does():
    plain = differences(PEERS["containerd"], OWN)["differences"]
    assert [one["name"] for one in plain] == ["linux.maskedPaths[/proc/interrupts]"]
    asked = explained(Case(CASES["masked_and_readonly_paths"]))
    names = {one["name"]: one for one in differences(PEERS["containerd"], asked)["differences"]}
    assert names["linux.maskedPaths[/proc/keys]"] == {
        "name": "linux.maskedPaths[/proc/keys]",
        "noded": None,
        "peer": "/proc/keys",
        "why": "",
    }
    assert all(one["peer"] is not None for one in names.values())


def test_the_facts_about_peers_cover_the_areas_that_they_claim():
    for peer in PEERS.values():
        assert all(name.startswith(peer.areas) for name in fields(peer.spec))


def test_a_document_is_json_and_has_every_field_in_order():
    whole = json.loads(json.dumps(document({"container": "c"}, OWN, notes=["n"])))
    assert [one["name"] for one in whole["fields"]] == list(fields(SPEC))
    assert set(whole) == {"schema", "subject", "fields", "absent", "notes", "peers"}
    assert {one["origin"]["kind"] for one in whole["fields"]} <= {kind.value for kind in Kind}
