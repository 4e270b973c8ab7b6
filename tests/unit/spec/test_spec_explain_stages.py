"""What happens to a spec after it was built, the comparison with peers, and the whole document."""

from __future__ import annotations

import copy
import json

import pytest
from spec_cases import CASES, secured

from noded.spec.explain.case import Case, build
from noded.spec.explain.document import document
from noded.spec.explain.explain import explained
from noded.spec.explain.fields import fields
from noded.spec.explain.peers import PEERS, differences
from noded.spec.explain.sources import Kind, Source
from noded.spec.explain.stages import after_stages, as_found
from noded.spec.lsm import MASKED_PATHS, READONLY_PATHS
from noded.spec.seccomp.peers import differences as seccomp_differences

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


def different(name, found, sysctls=None):
    return {one["name"]: one for one in differences(name, found, sysctls)["differences"]}


@pytest.mark.parametrize("name", PEERS)
def test_peers_are_compared_where_noded_decides_and_never_where_the_request_does(name):
    plain = different(name, OWN)
    assert set(plain) == {f"linux.maskedPaths[{path}]" for path in MASKED_PATHS} | {
        f"linux.readonlyPaths[{path}]" for path in READONLY_PATHS
    }
    assert all(one["peer"] is None and one["why"] == "default" for one in plain.values())
    listed = secured(masked_paths=MASKED_PATHS[:2], readonly_paths=READONLY_PATHS[:2])
    assert different(name, explained(Case(listed))) == {}  # as kubelet does in each request
    dropped = different(name, explained(Case(CASES["caps_all_dropped"])))
    assert dropped["process.capabilities.bounding[CAP_KILL]"] == {
        "name": "process.capabilities.bounding[CAP_KILL]",
        "noded": None,
        "peer": "CAP_KILL",
        "why": "",
    }


def test_other_defaults_of_the_node_are_differences():
    changed = explained(Case(CASES["image_without_path_or_directory"]))
    assert not any(name.startswith("process.env") for name in different("cri-o", changed))
    device = explained(Case(CASES["base_spec"]))
    assert different("cri-o", device)["linux.devices[/dev/fuse].path"]["why"] == "handler"


@pytest.mark.parametrize("name", PEERS)
def test_the_built_in_seccomp_profile_is_compared_call_by_call_and_no_other(name):
    own = different(name, explained(Case(CASES["seccomp_runtime_default"])))
    calls = {key for key in own if key.startswith("linux.seccomp")}
    assert calls == {f"linux.seccomp.syscalls[{call}]" for call in seccomp_differences(name)}
    assert all(own[call]["reason"] for call in calls)
    for case in ("plain", "seccomp_localhost_oci_form", "seccomp_runtime_default_of_the_policy"):
        found = different(name, explained(Case(CASES[case])))
        assert not any(key.startswith("linux.seccomp") for key in found)


def test_the_sysctls_of_the_pod_are_compared_where_they_are_known():
    port = "net.ipv4.ip_unprivileged_port_start"
    found = different("containerd", OWN, {port: "1024", "kernel.shmmni": "77"})
    assert found[f"sysctls of the pod[{port}]"] == {
        "name": f"sysctls of the pod[{port}]",
        "noded": "1024",
        "peer": "0",
        "why": "",
    }
    assert "sysctls of the pod[kernel.shmmni]" in different("cri-o", OWN, {"kernel.shmmni": "77"})
    assert not any("sysctls" in name for name in different("containerd", OWN))


def test_the_facts_about_peers_cover_the_areas_that_they_claim():
    for peer in PEERS.values():
        assert all(name.startswith(peer.areas) for name in fields(peer.spec))


def test_a_document_is_json_and_has_every_field_in_order():
    whole = json.loads(json.dumps(document({"container": "c"}, OWN, notes=["n"])))
    assert [one["name"] for one in whole["fields"]] == list(fields(SPEC))
    assert set(whole) == {"schema", "subject", "fields", "absent", "notes", "peers"}
    assert {one["origin"]["kind"] for one in whole["fields"]} <= {kind.value for kind in Kind}
