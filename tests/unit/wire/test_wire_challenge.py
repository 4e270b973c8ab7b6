from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.wire.challenge import Challenge, parse

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (" , ,", []),
        ("Basic", [Challenge("basic")]),
        ('BASIC Realm="a b"', [Challenge("basic", {"realm": "a b"})]),
        ("Basic realm=plain", [Challenge("basic", {"realm": "plain"})]),
        (
            "Bearer realm=https://h:1/t?x,service=s",
            [Challenge("bearer", {"realm": "https://h:1/t?x", "service": "s"})],
        ),
        (
            'Bearer realm="r" , service = "s, t" , Basic realm="q"',
            [Challenge("bearer", {"realm": "r", "service": "s, t"}), Challenge("basic", {"realm": "q"})],
        ),
        ("Negotiate, Basic realm=x", [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        ("Negotiate YII=, NTLM abc==", [Challenge("negotiate", {}, "YII="), Challenge("ntlm", {}, "abc==")]),
        (r'Basic realm="a\"b\\c"', [Challenge("basic", {"realm": 'a"b\\c'})]),
        ('Basic realm=""', [Challenge("basic", {"realm": ""})]),
        ("Basic realm=", [Challenge("basic", {"realm": ""})]),
        ("Basic realm=a, realm=b", [Challenge("basic", {"realm": "a"})]),
        (
            HUB,
            [
                Challenge(
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
    ],
)
def test_challenges_are_read(header: str, expected: list[Challenge]) -> None:
    assert list(parse([header])) == expected


@pytest.mark.parametrize(
    "header", ['Basic realm="open', '"x"', "=a", 'Basic realm="a"b', "Basic/x y=z", "B" * 20000]
)
def test_rubbish_is_refused(header: str) -> None:
    with pytest.raises(InvalidArgument, match="WWW-Authenticate header"):
        parse([header])


def test_several_headers_are_read_in_order() -> None:
    assert [one.scheme for one in parse(["Basic realm=a", "Bearer realm=b"])] == ["basic", "bearer"]


token = st.from_regex(r"[a-z][a-z0-9-]{0,6}", fullmatch=True)


@given(
    st.lists(
        st.tuples(
            token, st.dictionaries(token, st.text(st.characters(codec="latin-1"), max_size=12), max_size=4)
        ),
        max_size=4,
    )
)
def test_what_is_written_by_the_rules_is_read_back(wanted: list[tuple[str, dict[str, str]]]) -> None:
    def quote(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} {', '.join(f'{key}={quote(value)}' for key, value in parameters.items())}".strip()
        for scheme, parameters in wanted
    )
    assert [(one.scheme, dict(one.parameters)) for one in parse([header])] == wanted


@given(st.text(alphabet='Basic Bearer=",\\ \t/~realm', max_size=40))
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        parse([header])
    except InvalidArgument:
        return
