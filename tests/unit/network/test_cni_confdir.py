from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from noded.network.confdir import Broken, Listing, choose, read_confdir
from noded.network.conflist import parse_conflist


def conflist(name, type_="bridge"):
    return {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": type_}]}


def test_files_are_read_in_lexical_order_and_other_files_are_left_alone(lab):
    lab.write("20-b.conf", {"cniVersion": "0.3.1", "name": "b", "type": "ptp"})
    lab.write("10-a.conflist", conflist("a"))
    lab.write("30-c.json", conflist("c"))
    lab.write(".05-hidden.conflist", conflist("hidden"))
    lab.write("01-readme.txt", "no network")
    (lab.conf / "00-dir.conf").mkdir()
    (lab.conf / "00-dangling.conf").symlink_to("nowhere")
    os.mkfifo(lab.conf / "00-pipe.conf")
    listing = read_confdir(lab.conf)
    assert [network.name for network in listing.networks] == ["a", "b", "c"]
    assert listing.broken == ()


def test_a_symlink_to_a_file_is_followed(lab):
    lab.write("real", conflist("a"))
    (lab.conf / "10-a.conflist").symlink_to("real")
    assert read_confdir(lab.conf).networks[0].source == "10-a.conflist"


def test_a_bad_file_is_reported_and_hides_no_other(lab):
    lab.write("10-a.conflist", "{")
    lab.write("20-b.conflist", conflist("b"))
    (lab.conf / "30-c.conflist").write_bytes(b"\xff")
    (lab.conf / "40-d.conflist").write_bytes(b" " * (1 << 20) + b" ")
    lab.write("99-loopback.conf", {"cniVersion": "0.3.1", "name": "lo", "type": "loopback"})
    listing = read_confdir(lab.conf)
    assert [network.name for network in listing.networks] == ["b"]
    reasons = {item.source: item.reason for item in listing.broken}
    assert reasons["10-a.conflist"].startswith("10-a.conflist: not JSON at line 1")
    assert "30-c.conflist: cannot be read" in reasons["30-c.conflist"]
    assert "larger than 1 MiB" in reasons["40-d.conflist"]
    assert "only the loopback interface" in reasons["99-loopback.conf"]


def test_a_missing_directory_is_no_error(tmp_path):
    assert read_confdir(tmp_path / "absent") == Listing(tmp_path / "absent")


def test_plugins_in_the_directory_of_the_network_are_appended(lab):
    lab.write("10-a.conflist", conflist("a"))
    (lab.conf / "a").mkdir()
    lab.write("a/20-tuning.conf", {"type": "tuning"})
    lab.write("a/10-firewall.conf", {"type": "firewall"})
    assert read_confdir(lab.conf).networks[0].plugin_types == ("bridge", "firewall", "tuning")
    lab.write("10-a.conflist", {**conflist("a"), "loadOnlyInlinedPlugins": True})
    assert read_confdir(lab.conf).networks[0].plugin_types == ("bridge",)


def test_a_bad_appended_plugin_makes_its_network_unusable_and_is_named(lab):
    lab.write("10-a.conflist", conflist("a"))
    (lab.conf / "a").mkdir()
    lab.write("a/x.conf", {"kind": "tuning"})
    assert read_confdir(lab.conf).broken == (Broken("10-a.conflist", "a/x.conf: type: must name a plugin"),)


@pytest.fixture
def listing(tmp_path):
    networks = [parse_conflist(json.dumps(conflist(name)), f"10-{name}.conflist") for name in ("a", "b")]
    return Listing(tmp_path, True, tuple(networks))


def test_the_first_network_is_chosen_or_the_one_asked_for(listing):
    assert choose(listing, "", None).conflist.name == "a"
    assert choose(listing, "b", None).conflist.name == "b"


def test_a_network_that_is_not_there_is_named_with_those_that_are(listing):
    choice = choose(listing, "c", None)
    assert choice.conflist is None
    assert (
        f"no network named 'c' in {listing.directory} (found: a, b): correct [network] default_network"
        in choice.message
    )


def test_what_is_missing_is_said_with_what_to_do(tmp_path):
    assert "does not exist: install a network add-on" in choose(Listing(tmp_path), "", None).message
    assert "has no network: install a network add-on" in choose(Listing(tmp_path, True), "", None).message
    broken = (Broken("a.conf", "a.conf: not JSON"),)
    assert (
        "correct the files: a.conf: not JSON" in choose(Listing(tmp_path, True, (), broken), "", None).message
    )


def test_an_ignored_file_is_mentioned_beside_the_chosen_one(listing):
    choice = choose(replace(listing, broken=(Broken("05-x.conf", "05-x.conf: not JSON"),)), "", None)
    assert choice.conflist.name == "a"
    assert choice.message == "ignored: 05-x.conf: not JSON"


def test_a_half_written_file_does_not_move_pods_to_the_next_network(listing):
    """An add-on that rewrites its file in place would otherwise send pods to another network."""
    previous = listing.networks[0]
    rewriting = replace(
        listing, networks=listing.networks[1:], broken=(Broken(previous.source, "10-a.conflist: not JSON"),)
    )
    choice = choose(rewriting, "", previous)
    assert choice.conflist is previous
    assert "its last good content is in use: 10-a.conflist: not JSON" in choice.message
    assert choose(rewriting, "", None).conflist.name == "b"
    assert choose(replace(rewriting, broken=()), "", previous).conflist.name == "b"
