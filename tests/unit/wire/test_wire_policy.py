"""containers-policy.json, signed claims, and the YAML that registries.d is written in."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.wire import reference as references
from noded.wire import yaml_subset
from noded.wire.policy import (
    AcceptAnything,
    Identity,
    Policy,
    Reject,
    Signed,
    Unsupported,
    allows,
    parse_policy,
    scopes,
)
from noded.wire.signature import COSIGN, Claim, parse_claim

ACCEPT, REJECT = {"type": "insecureAcceptAnything"}, {"type": "reject"}
DIGEST = "sha256:" + "0" * 64


def policy(default: object = (REJECT,), **docker: object) -> Policy:
    return parse_policy(json.dumps({"default": default, "transports": {"docker": docker}}).encode())


def requirement(**fields: object) -> object:
    (one,) = policy([fields]).default
    return one


def test_the_most_specific_scope_decides() -> None:
    assert list(scopes(references.parse("a.b.io:5000/x/y:t"))) == [
        "a.b.io:5000/x/y:t", "a.b.io:5000/x/y", "a.b.io:5000/x", "a.b.io:5000", "*.b.io", "*.io", "",
    ]  # fmt: skip
    made = parse_policy(
        json.dumps(
            {
                "default": [REJECT],
                "transports": {
                    "docker": {"": [ACCEPT], "b.io/x": [REJECT], "b.io/x/y": [ACCEPT], "*.c.io": [REJECT]},
                    "dir": {"": [{"type": "nonsense"}]},
                },
            }
        ).encode()
    )

    def decision(name: str) -> tuple[str, object]:
        scope, (one,) = made.requirements(references.parse(name))
        return scope, one

    assert decision("b.io/x/y:t") == ("b.io/x/y", AcceptAnything())
    assert decision("b.io/x/z:t") == ("b.io/x", Reject())
    assert decision("b.io/xy:t") == ("all registries", AcceptAnything())
    assert decision("d.c.io/a") == ("*.c.io", Reject())
    assert policy().requirements(references.parse("a")) == ("default", (Reject(),))


def test_keys_are_files_or_data() -> None:
    key = base64.b64encode(b"key").decode()
    assert requirement(type="signedBy", keyType="GPGKeys", keyPath="/k") == Signed(
        "gpg", ("/k",), (), Identity()
    )
    assert requirement(type="sigstoreSigned", keyPaths=["/k", "/l"]) == Signed(
        "sigstore", ("/k", "/l"), (), Identity()
    )
    assert requirement(
        type="sigstoreSigned", keyDatas=[key], signedIdentity={"type": "matchExact"}
    ) == Signed("sigstore", (), (b"key",), Identity("matchExact"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "signedBaseLayer"}, "type 'signedBaseLayer'"),
        ({"type": "futureThing"}, "type 'futureThing'"),
        ({"type": "signedBy", "keyType": "X509", "keyPath": "/k"}, "keyType 'X509'"),
        ({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k", "new": 1}, "key 'new'"),
        ({"type": "sigstoreSigned", "fulcio": {}}, "fulcio"),
        ({"type": "sigstoreSigned", "pki": {}}, "pki"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "rekorPublicKeyPath": "/r"}, "rekorPublicKeyPath"),
        ({"type": "sigstoreSigned", "keyPath": "/k", "signedIdentity": {"type": "x"}}, "type 'x'"),
    ],
)
def test_what_cannot_be_checked_is_kept_as_such(fields: dict[str, object], words: str) -> None:
    found = requirement(**fields)
    assert isinstance(found, Unsupported)
    assert words in found.reason


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"{", "is not JSON"),
        (b"[]", "not an object"),
        (b"{}", "default is missing or empty"),
        (b'{"default": []}', "default is missing or empty"),
        (b'{"default": [{"type": "reject"}], "x": 1}', "unknown key 'x'"),
        (b'{"default": [{"type": "signedBy", "keyType": "GPGKeys"}]}', "exactly one of"),
        (b'{"default": [{"type": "sigstoreSigned", "keyPath": "/a", "keyData": "YQ=="}]}', "exactly one of"),
        (b'{"default": [{"type": "sigstoreSigned", "keyPath": "a"}]}', "not an absolute path"),
        (b'{"default": [{"type": "sigstoreSigned", "keyData": "?"}]}', "not base64"),
        (
            b'{"default": [{"type": "sigstoreSigned", "keyPath": "/a",'
            b'"signedIdentity": {"type": "remapIdentity", "prefix": "a b", "signedPrefix": "c"}}]}',
            "is not host",
        ),
    ],
)
def test_a_policy_that_is_not_valid_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_policy(data)


@pytest.mark.parametrize(
    ("identity", "name", "signed", "expected"),
    [
        (Identity("matchExact"), "a.io/b:t", "a.io/b:t", True),
        (Identity("matchExact"), "a.io/b:t", "a.io/b:u", False),
        (Identity("matchExact"), "a.io/b", "a.io/b", False),
        (Identity("matchExact"), f"a.io/b@{DIGEST}", f"a.io/b@{DIGEST}", True),
        (Identity(), "a.io/b:t", "a.io/b:t", True),
        (Identity(), "a.io/b:t", "a.io/b", False),
        (Identity(), f"a.io/b@{DIGEST}", "a.io/b:other", True),
        (Identity(), f"a.io/b@{DIGEST}", "a.io/c:t", False),
        (Identity(), "busybox", "docker.io/library/busybox:latest", True),
        (Identity("matchRepository"), "a.io/b:t", "a.io/b", True),
        (Identity("matchRepository"), "a.io/b:t", "a.io/bc:t", False),
        (Identity("exactReference", "x.io/y:z"), "a.io/b:t", "x.io/y:z", True),
        (Identity("exactReference", "x.io/y:z"), "x.io/y:t", "x.io/y:t", False),
        (Identity("exactRepository", "x.io/y"), "a.io/b:t", "x.io/y", True),
        (Identity("remapIdentity", "mirror.io/q", "quay.io"), "mirror.io/q/b:t", "quay.io/b:t", True),
        (Identity("remapIdentity", "mirror.io/q", "quay.io"), "mirror.io/qq/b:t", "quay.io/b:t", False),
        (Identity("remapIdentity", "mirror.io/q", "quay.io"), "quay.io/b:t", "quay.io/b:t", True),
        (Identity("later"), "a.io/b:t", "a.io/b:t", False),
        (Identity("matchRepository"), "a.io/b:t", "not a name", False),
    ],
)
def test_a_signature_is_for_a_name(identity: Identity, name: str, signed: str, expected: bool) -> None:
    assert allows(identity, references.parse(name), signed) == expected


def claim(**changes: object) -> dict[str, object]:
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": DIGEST},
        "identity": {"docker-reference": "a.io/b:t"},
    }
    return {"critical": {**critical, **changes}, "optional": {"creator": "me"}}


def test_a_claim_is_read_and_nothing_critical_is_passed_over() -> None:
    assert parse_claim(json.dumps(claim()).encode()) == Claim(DIGEST, "a.io/b:t")
    cosign = json.dumps(claim(type=COSIGN)).encode()
    with pytest.raises(InvalidArgument, match="is of type"):
        parse_claim(cosign)
    assert parse_claim(cosign, (COSIGN,)).manifest_digest == DIGEST
    for bad in (claim(more=1), claim(image={}), {**claim(), "more": 1}, {"critical": []}, []):
        with pytest.raises(InvalidArgument):
            parse_claim(json.dumps(bad).encode())
    twice = json.dumps(claim())[:-1] + ', "critical": {}}'
    with pytest.raises(InvalidArgument, match="repeated"):
        parse_claim(twice.encode())
    with pytest.raises(InvalidArgument, match="longer than"):
        parse_claim(b" " * 100_000)


def test_the_yaml_of_registries_d_is_read() -> None:
    text = """
# comment
default-docker:
    lookaside: file:///var/lib/sigstore   # behind
docker:
    registry.example:5000/ns:
        lookaside: 'https://sig.example/#x'
        "use-sigstore-attachments": true
    empty:
    b: {}
    'it''s': "q\\"x: y"
"""
    assert yaml_subset.parse(text) == {
        "default-docker": {"lookaside": "file:///var/lib/sigstore"},
        "docker": {
            "registry.example:5000/ns": {
                "lookaside": "https://sig.example/#x",
                "use-sigstore-attachments": True,
            },
            "empty": None,
            "b": {},
            "it's": 'q"x: y',
        },
    }
    assert yaml_subset.parse('{"docker": {"a": {"lookaside": "x"}}}') == {"docker": {"a": {"lookaside": "x"}}}
    assert yaml_subset.parse("") == {}


@pytest.mark.parametrize(
    "text",
    ["- a", "a: [b]", "a: &x b", "a: *x", "a: |\n  b", "a: !t b", "a", "a: b: c", "a: b\na: c", "a:\n\tb: c",
     "a:\n  b: c\n d: e", "a: b\n  c: d", "a: 'x", "? a", "a: {b: c}", "a: @x"],
)  # fmt: skip
def test_other_yaml_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^line \d+: "):
        yaml_subset.parse(text)


NESTED = st.recursive(
    st.booleans() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    lambda inner: st.dictionaries(st.text("abc:/.-", min_size=1, max_size=6), inner, min_size=1, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abcxyz", min_size=1, max_size=4), NESTED, max_size=4))
def test_what_is_written_as_nested_mappings_is_read_again(value: dict[str, object]) -> None:
    def write(value: dict[str, object], indent: int) -> str:
        lines = ""
        for key, item in value.items():
            head = f"{' ' * indent}{json.dumps(key)}:"
            if isinstance(item, dict):
                lines += f"{head}\n{write(item, indent + 2)}"
            else:
                lines += f"{head} {json.dumps(item)}\n"
        return lines

    assert yaml_subset.parse(write(value, 0)) == value


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        yaml_subset.parse(text)
    except InvalidArgument:
        return
