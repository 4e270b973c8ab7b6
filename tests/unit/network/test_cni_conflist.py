from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition
from noded.network.conflist import parse_conflist, parse_plugin, plugin_request, require_plugins
from noded.network.version import SUPPORTED, negotiate

BRIDGE = {"type": "bridge", "ipam": {"type": "host-local"}}
LIST = {"cniVersion": "1.0.0", "name": "podnet", "plugins": [BRIDGE]}


def parse(value, **keys):
    return parse_conflist(value if isinstance(value, str) else json.dumps(value), "10-net.conflist", **keys)


def refusal(value):
    with pytest.raises(FailedPrecondition) as caught:
        require_plugins(parse(value))
    message = str(caught.value)
    assert message.startswith("10-net.conflist: ")
    return message


def test_a_list_is_read_whole():
    conflist = parse({**LIST, "custom": {"kept": 1}})
    assert (conflist.name, conflist.versions, conflist.plugin_types) == ("podnet", ("1.0.0",), ("bridge",))
    assert conflist.document("1.0.0") == {**LIST, "custom": {"kept": 1}}


def test_a_single_plugin_becomes_a_list_of_one():
    conflist = parse({"cniVersion": "0.3.1", "name": "old", "type": "bridge", "bridge": "br0"})
    assert conflist.document("0.3.1")["plugins"][0]["bridge"] == "br0"
    assert conflist.name == "old"


def test_a_missing_version_is_the_oldest():
    assert parse({"name": "n", "plugins": [BRIDGE]}).versions == ("0.1.0",)


def test_of_several_versions_those_that_noded_speaks_remain_newest_first():
    conflist = parse({**LIST, "cniVersions": ["0.4.0", "1.1.0", "9.0.0"]})
    assert conflist.versions == ("1.1.0", "1.0.0", "0.4.0")


def test_the_newest_version_that_all_plugins_speak_is_agreed_on():
    old, new = frozenset({"0.4.0", "1.0.0"}), frozenset({"1.0.0", "1.1.0"})
    assert negotiate(("1.1.0", "1.0.0"), [old, new]) == "1.0.0"
    assert negotiate(("1.1.0", "1.0.0"), [new]) == "1.1.0"
    assert negotiate(("1.1.0",), [old]) is None
    assert negotiate(("1.1.0",), []) == "1.1.0"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('{"a": 1,\n  "b" 2}', "not JSON at line 2, column 7"),
        ("", "not JSON at line 1"),
        ("[]", "not a JSON object"),
        ('{"name": NaN}', "NaN is not a JSON number"),
        ({**LIST, "name": "../etc"}, "name: '../etc' must begin with"),
        ({**LIST, "name": None}, "name: None must begin with"),
        ({**LIST, "plugins": {}}, "plugins: must be a list"),
        ({**LIST, "plugins": [1]}, "plugins[0]: must be an object"),
        ({**LIST, "plugins": [BRIDGE, {}]}, "plugins[1].type: must name a plugin"),
        (
            {**LIST, "plugins": [{"type": "../../bin/sh"}]},
            "plugins[0].type: '../../bin/sh' must be a plain file name",
        ),
        ({**LIST, "plugins": [{"type": ".."}]}, "must be a plain file name"),
        ({**LIST, "plugins": []}, "plugins: the list is empty"),
        ({**LIST, "plugins": [{"type": "loopback"}]}, "only the loopback interface"),
        ({**LIST, "cniVersion": "2.0.0"}, "cniVersion: 2.0.0 is not among the versions noded speaks"),
        ({**LIST, "cniVersion": 1}, "cniVersion: must be a string"),
        ({**LIST, "cniVersions": "1.0.0"}, "cniVersions: must be a list"),
        ({**LIST, "disableCheck": "maybe"}, "disableCheck: 'maybe' must be true or false"),
    ],
)
def test_a_bad_file_is_refused_with_the_place_and_the_reason(value, words):
    assert words in refusal(value)


def test_a_deeply_nested_file_is_refused():
    assert "not JSON" in refusal("[" * 100_000)


def test_plugins_of_other_files_come_after_the_inlined_ones_unless_excluded():
    added = [parse_plugin('{"type": "tuning"}', "podnet/a.conf")]
    assert parse(LIST, added=added).plugin_types == ("bridge", "tuning")
    assert parse({**LIST, "loadOnlyInlinedPlugins": True}, added=added).plugin_types == ("bridge",)


def test_a_plugin_gets_only_the_capabilities_it_declares():
    plugin = {"type": "portmap", "capabilities": {"portMappings": True, "dns": False}, "name": "other"}
    request = plugin_request(
        LIST, plugin, capability_args={"portMappings": [1], "dns": {}, "mac": "x"}, previous={"ips": []}
    )
    assert request["runtimeConfig"] == {"portMappings": [1]}
    assert request["name"] == "podnet"
    assert request["cniVersion"] == "1.0.0"
    assert request["prevResult"] == {"ips": []}


def test_what_the_runtime_passes_cannot_be_preset_in_the_file():
    plugin = {"type": "a", "prevResult": {"ips": ["evil"]}, "runtimeConfig": {"mac": "evil"}}
    assert plugin_request(LIST, plugin) == {"type": "a", "name": "podnet", "cniVersion": "1.0.0"}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
keys = st.sampled_from(
    ["cniVersion", "cniVersions", "name", "plugins", "type", "disableCheck", "capabilities", "x"]
)
near_misses = st.dictionaries(
    keys, json_values | st.lists(st.dictionaries(keys, json_values, max_size=4), max_size=3)
)


@given(st.text(max_size=50) | near_misses.map(json.dumps))
def test_any_file_is_a_usable_list_or_refused(text):
    try:
        conflist = parse_conflist(text, "x.conf")
        require_plugins(conflist)
    except FailedPrecondition:
        return
    assert set(conflist.versions) <= set(SUPPORTED)
    document = conflist.document(conflist.versions[0])
    for plugin in document["plugins"]:
        assert plugin_request(document, plugin)["name"] == conflist.name
