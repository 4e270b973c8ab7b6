"""The built-in profile against the peers' defaults: no difference without a reason, none undocumented."""

from __future__ import annotations

from pathlib import Path

import pytest
from seccomp_peers import KEYS, PEERS, differences, peer, table

from noded.spec.seccomp import peers
from noded.spec.seccomp.default import default_profile

PAGE = Path(__file__).resolve().parents[3] / "docs" / "seccomp.md"


def test_every_difference_has_one_reason_and_every_reason_a_difference():
    different = {call for name in PEERS for call in differences(name)}
    assert set(peers.REASONS) == different
    explained = [call for names in peers._REASONS for call in names.split()]
    assert len(explained) == len(set(explained))


@pytest.mark.parametrize("name", PEERS)
def test_what_noded_tells_of_a_peer_is_what_its_whole_list_says(name):
    assert peers.differences(KEYS[name]) == differences(name)


def test_the_page_shows_the_comparison_as_it_is():
    # python tests/unit/spec/seccomp_peers.py prints it
    assert table() in PAGE.read_text()


@pytest.mark.parametrize("name", PEERS)
def test_the_facts_of_a_peer_are_dated_and_complete(name):
    text = (Path(__file__).with_name("peers") / PEERS[name]).read_text()
    assert text.startswith("# ")
    assert "2026-" in text.splitlines()[0] + text.splitlines()[1]
    assert len(peer(name)) > 350


def test_the_facts_of_noded_are_those_of_its_profile():
    profile = default_profile("x86_64", ())
    plain = {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
        for name in rule["names"]
    }
    assert plain == {name for name, answer in peers.grants().items() if answer == "always"}
