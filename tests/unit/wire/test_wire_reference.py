from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.wire import reference as references
from noded.wire.reference import Reference, parse

HEX = "0123456789abcdef" * 4
DIGEST = f"sha256:{HEX}"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("nginx/nginx", "docker.io/nginx/nginx:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox:x", "docker.io/library/busybox:x"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b:t"),
        ("quay.io/a/b__c/d.e-f:V1.0_x", "quay.io/a/b__c/d.e-f:V1.0_x"),
        ("Host/a", "Host/a:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("[2001:db8::1]/a:b", "[2001:db8::1]/a:b"),
        ("10.0.0.1:80/a", "10.0.0.1:80/a:latest"),
        (f"quay.io/a@{DIGEST}", f"quay.io/a@{DIGEST}"),
        (f"quay.io/a:t@{DIGEST}", f"quay.io/a:t@{DIGEST}"),
        (f"busybox@sha512:{HEX}{HEX}", f"docker.io/library/busybox@sha512:{HEX}{HEX}"),
    ],
)
def test_a_reference_is_normalised(text: str, full: str) -> None:
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (HEX, "image ID"),
        (DIGEST, "image ID"),
        ("quay.io/", "empty component"),
        ("quay.io//a", "empty component"),
        (":tag", "empty component"),
        ("a:", "tag ''"),
        ("a:-x", "tag '-x'"),
        ("a:" + "t" * 129, "tag"),
        ("a:b:c", "tag 'b:c'"),
        ("A/b/C", "lower case"),
        ("Busybox", "lower case"),
        ("a_-b", "'a_-b'"),
        ("a/-b", "'-b'"),
        ("a b", "'a b'"),
        ("a\n", "component"),
        ("host:99999/a", "port '99999'"),
        ("host:0/a", "port '0'"),
        ("host:/a", "port ''"),
        ("ho_st.x/a", "host name"),
        ("-h.x/a", "host name"),
        ("[::1/a", "not a registry host name|port"),
        ("[zz]:1/a", "IPv6"),
        ("[fe80::1%25eth0]:1/a", "zone"),
        ("a@sha256:abc", "3 digits"),
        (f"a@{DIGEST}@{DIGEST}", "digits"),
        ("a/" * 130 + "b", "longer than 255"),
        ("a" * 1025, "1025 characters"),
        ("https://quay.io/a", "port ''|empty component"),
    ],
)
def test_a_bad_reference_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason):
        parse(text)


component = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
label = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,5}[a-zA-Z0-9])?", fullmatch=True)
hosts = st.one_of(
    st.just("localhost"),
    st.just("docker.io"),
    st.builds(lambda labels: ".".join(labels), st.lists(label, min_size=2, max_size=4)),
    st.builds(lambda name, port: f"{name}:{port}", label, st.integers(1, 65535)),
    st.builds(lambda address: f"[{address}]", st.ip_addresses(v=6).filter(lambda one: one.scope_id is None)),
)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,10}", fullmatch=True)


@given(hosts, st.lists(component, min_size=1, max_size=4), st.none() | tags, st.booleans())
def test_the_full_form_parses_to_itself(host: str, parts: list[str], tag: str | None, digest: bool) -> None:
    text = f"{host}/{'/'.join(parts)}" + (f":{tag}" if tag else "") + (f"@{DIGEST}" if digest else "")
    parsed = parse(text)
    assert parse(str(parsed)) == parsed
    assert str(parse(str(parsed))) == str(parsed)
    assert parsed.tag or parsed.digest
    assert parsed.target in (parsed.tag, parsed.digest)
    assert not references.is_short(str(parsed))


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidArgument:
        return
    assert parse(str(parsed)) == parsed
    assert str(parsed).isascii()


@given(st.text(alphabet="ab./:@-_[]A%\n0", max_size=30))
def test_text_near_the_grammar_is_parsed_or_refused(text: str) -> None:
    try:
        parsed = parse(text)
    except InvalidArgument:
        return
    assert parse(str(parsed)) == parsed


def test_a_digest_decides_over_a_tag() -> None:
    parsed = parse(f"quay.io/a:t@{DIGEST}")
    assert parsed.target == DIGEST
    assert parsed.canonical == f"quay.io/a@{DIGEST}"
    assert parse("quay.io/a:t").at(DIGEST) == Reference("quay.io", "a", "", DIGEST)


@pytest.mark.parametrize("text", ["busybox", "a/b", "a/b:c", f"a@{DIGEST}"])
def test_a_name_without_a_host_is_short(text: str) -> None:
    assert references.is_short(text)


@pytest.mark.parametrize("text", ["localhost/a", "x.y/a", "x:1/a", "X/a", "[::1]/a"])
def test_a_name_with_a_host_is_not_short(text: str) -> None:
    assert not references.is_short(text)
