from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import FailedPrecondition, InvalidArgument
from noded.network.podcidr import PodCIDRs, parse_pod_cidrs, render_conflist
from noded.network.template import render

VALUES = {
    "PodCIDR": "10.1.0.0/24",
    "PodCIDRRanges": ("10.1.0.0/24", "fd00::/64"),
    "Routes": ("0.0.0.0/0", "::/0"),
}

DUAL_STACK = """{
  "cniVersion": "1.0.0", "name": "kubenet",
  "plugins": [{
    "type": "bridge", "bridge": "cbr0",
    "ipam": {
      "type": "host-local",
      "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
      "routes": [{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]
    }
  }]
}"""


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("{{.PodCIDR}}", "10.1.0.0/24"),
        ("{{ .PodCIDR }}|{{$.PodCIDR}}", "10.1.0.0/24|10.1.0.0/24"),
        ("{{range .Routes}}<{{.}}>{{end}}", "<0.0.0.0/0><::/0>"),
        ("{{range $x := .Routes}}{{$x}} {{end}}", "0.0.0.0/0 ::/0 "),
        ("{{range $i, $x := .Routes}}{{$i}}{{$.PodCIDR}}{{end}}", "010.1.0.0/24110.1.0.0/24"),
        ("{{index .PodCIDRRanges 1}}", "fd00::/64"),
        ("{{if eq (len .Routes) 2}}dual{{else}}single{{end}}", "dual"),
        ("{{if not .PodCIDR}}a{{else if ne 1 2}}b{{else}}c{{end}}", "b"),
        ("{{if and .PodCIDR (or 0 .Routes)}}yes{{end}}", "yes"),
        ('a {{- "b" -}} c', "abc"),
        ("a{{/* {{ no }} */}}b", None),
        ("a{{/* note */}}b", "ab"),
        ("{{range .Routes}}{{range $.Routes}}x{{end}}{{end}}", "xxxx"),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
    ],
)
def test_the_documented_language_is_rendered(template, text):
    if text is None:
        with pytest.raises(FailedPrecondition):
            render(template, VALUES)
    else:
        assert render(template, VALUES) == text


def test_an_empty_list_takes_the_else_branch():
    assert render("{{range .L}}x{{else}}none{{end}}", {"L": ()}) == "none"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Missing}}", r"line 1: \.Missing is not known here; known: \.PodCIDR"),
        ("\n\n{{if .PodCIDR}}", "line 3: {{if ...}} without {{end}}"),
        ("{{end}}", "without a matching"),
        ("{{range .PodCIDR}}{{end}}", "range needs a list"),
        ("{{$x}}", r"'\$x' is not known here"),
        ("{{.PodCIDR | printf}}", "cannot read"),
        ("{{", "without }}"),
        ("{{}}", "is empty"),
        ("{{index .Routes 7}}", "index cannot be applied"),
        ("{{len}}", "a value is missing"),
        ('{{template "x"}}', "'template' is not known here"),
        ("{{if 1}}a{{else}}b{{else}}c{{end}}", "must be followed by"),
        ("{{range $a, $b, $c := .Routes}}{{end}}", "write range"),
        ("{{(" + "(" * 99 + "1", "nested|cannot read|without"),
        ("{{if 1}}" * 99, "nested too deeply"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_line(template, words):
    with pytest.raises(FailedPrecondition, match=words):
        render(template, VALUES)


pieces = st.sampled_from(
    [
        "{{range .Routes}}", "{{range $i, $x := .PodCIDRRanges}}", "{{if .PodCIDR}}", "{{else}}",
        "{{else if 1}}", "{{end}}", "{{.}}", "{{ .PodCIDR -}} ", " {{- $x }}", "{{index .Routes 0}}",
        '{{"s"}}', "{{", "}}", "(", ")", ":=", "$", ".", "text", "\n",
    ]
)  # fmt: skip


@given(st.lists(pieces, max_size=20).map("".join))
def test_any_template_is_rendered_or_refused(template):
    with suppress(FailedPrecondition):
        assert isinstance(render(template, VALUES), str)


def test_a_dual_stack_template_of_containerd_gives_a_valid_list():
    document = json.loads(render_conflist(DUAL_STACK, ("10.1.0.0/24", "fd00::/64")))
    ipam = document["plugins"][0]["ipam"]
    assert ipam["ranges"] == [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]]
    assert ipam["routes"] == [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]


def test_pod_cidrs_are_checked_and_normalised():
    assert parse_pod_cidrs("10.1.2.3/24, fd00::1/64,10.1.2.0/24,") == ("10.1.2.0/24", "fd00::/64")
    assert parse_pod_cidrs("") == ()


@pytest.mark.parametrize("text", ["10.1.2.0", "10.1.2.0/33", "x", '10.0.0.0/8"}', "1" * 2000])
def test_a_bad_pod_cidr_names_the_field(text):
    with pytest.raises(InvalidArgument, match=r"runtime_config\.network_config\.pod_cidr"):
        parse_pod_cidrs(text)


@given(st.text(max_size=60))
def test_any_pod_cidr_text_is_parsed_or_refused(text):
    with suppress(InvalidArgument):
        assert parse_pod_cidrs(",".join(parse_pod_cidrs(text))) == parse_pod_cidrs(text)


def test_the_rendered_file_is_written_once_and_only_if_it_changes(tmp_path):
    template = tmp_path / "template"
    template.write_text(DUAL_STACK)
    store = PodCIDRs(tmp_path / "cache", tmp_path / "net.d", str(template))
    assert store.publish(("10.1.0.0/24",))
    assert not store.publish(("10.1.0.0/24",))
    assert store.publish(("10.2.0.0/24",))
    assert [path.name for path in (tmp_path / "net.d").iterdir()] == ["10-noded.conflist"]
    assert "10.2.0.0/24" in (tmp_path / "net.d" / "10-noded.conflist").read_text()


def test_a_template_that_gives_no_valid_list_is_refused_and_nothing_is_written(tmp_path):
    template = tmp_path / "template"
    template.write_text('{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "{{.PodCIDR}}"},]}')
    store = PodCIDRs(tmp_path, tmp_path / "net.d", str(template))
    with pytest.raises(
        FailedPrecondition, match=r"conf_template .*template: the rendered configuration: not JSON at line 1"
    ):
        store.publish(("10.1.0.0/24",))
    assert not (tmp_path / "net.d").exists()


def test_a_missing_template_is_named(tmp_path):
    store = PodCIDRs(tmp_path, tmp_path, str(tmp_path / "absent"))
    with pytest.raises(FailedPrecondition, match=r"conf_template .*absent cannot be read"):
        store.publish(("10.1.0.0/24",))


@pytest.mark.parametrize("content", [None, "", "[", "{}", "[1]", '["x"]', "7", "\udcff"])
def test_remembered_cidrs_that_cannot_be_read_count_as_none(tmp_path, content):
    if content is not None:
        (tmp_path / "pod-cidr.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    assert PodCIDRs(tmp_path, tmp_path, "").recall() == ()


def test_pod_cidrs_are_remembered(tmp_path):
    PodCIDRs(tmp_path / "new", tmp_path, "").remember(("10.1.0.0/24", "fd00::/64"))
    assert PodCIDRs(tmp_path / "new", tmp_path, "").recall() == ("10.1.0.0/24", "fd00::/64")
