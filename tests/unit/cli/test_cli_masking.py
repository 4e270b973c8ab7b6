"""Secrets do not get into a support bundle."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.cli.masking import masked

KEYS = (
    "password", "passwd", "secret", "token", "Authorization", "bearer", "basic", "passphrase", "api_key",
    "apiKey", "private_key", "identity_token", "registry_token", "X-Registry-Auth", "AWS_SECRET_ACCESS_KEY",
    "my.token.file",
)  # fmt: skip
FIRST, LAST = "Qx7", "Zy9"  # no secret ends otherwise
PREFIX = "Nov 22 08:20:23 node-1 noded[812]: "

secrets = st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=30).map(
    lambda text: f"{FIRST}{text}{LAST}"
)
words = st.text("abcXYZ019+/=_-.,;:{}[]()'\"\\$&%@!", max_size=30).map(lambda text: f"{FIRST}{text}{LAST}")


def check(before: str, secret: str, after: str = "") -> None:
    found = masked(f"{before}{secret}{after}")
    assert FIRST not in found, found
    assert LAST not in found, found
    assert found.startswith(before.partition("://")[0]), found
    assert masked(found) == found


@pytest.mark.parametrize(
    "text",
    [
        'password = "hunter2"',
        '  "registry_token": "hunter2",',
        "AUTH: hunter2",
        "proxy = https://me:hunter2@proxy.example:3128",
        'my-secret-key="hunter2"',
        "secret = my hunter2 phrase",
        'passphrase = """\nhunter2\n"""',
        "-----BEGIN EC PRIVATE KEY-----\nhunter2\n-----END EC PRIVATE KEY-----",
        f"{PREFIX}('authorization', 'Basic hunter2')",
        f"{PREFIX}pull failed authorization=Negotiate hunter2",
        f"{PREFIX}helper --token hunter2 failed",
        f"{PREFIX}GET https://r.example/v2/?sig=hunter2&b=hunter2#x failed",
        f"{PREFIX}GET https://me:hun@hunter2@r.example/v2/ failed",
        f"{PREFIX}" + r'{"error": "reply {\"token\": \"hunter2\", \"a\": 1}"}',
        f"{PREFIX}auths={{'r.example': {{'username': 'me', 'x': 'hunter2'}}}}",
    ],
)
def test_a_value_that_names_a_secret_is_masked(text: str) -> None:
    assert "hunter2" not in masked(f"a = 1\n{text}\nb = 2")
    assert masked(f"a = 1\n{text}\nb = 2").startswith("a = 1\n")
    assert masked(f"a = 1\n{text}\nb = 2").endswith("\nb = 2")


def test_other_text_stays() -> None:
    text = (
        'root = "/var/lib/noded"\nauthor_of_nothing\nhttps://registry.example/v2/\n'
        f"{PREFIX}the token is too old, the registry wants a secret --config x\n"
        f'{PREFIX}WWW-Authenticate Bearer realm=x\n{{"id": "0123", "name": "a b"}}\n'
    )
    assert masked(text) == text


def test_what_follows_a_secret_stays() -> None:
    assert masked("token=a b=1") == "token=*** b=1"
    assert json.loads(masked('{"token": "a", "n": 1, "secret": 5, "m": 2}'.replace("5", '"5"')))["m"] == 2


@given(st.sampled_from(KEYS), secrets)
def test_a_secret_in_json_is_masked(key: str, secret: str) -> None:
    inner = json.dumps({"a": 1, key: secret, "b": "other"})
    check(PREFIX, inner)
    check(PREFIX, json.dumps({"event": "reply", "body": inner, "c": 1}))
    check("", json.dumps({"a": {key: secret}}, indent=2))


@given(st.sampled_from(KEYS), secrets)
def test_a_secret_in_a_repr_is_masked(key: str, secret: str) -> None:
    check(PREFIX, repr({key: secret, "a": 1}))
    check(PREFIX, f"{key}={secret!r} a=1")
    check(PREFIX, f"{key}={secret.encode()!r} a=1")


@given(st.sampled_from(KEYS), words, st.sampled_from(["=", ":", " = ", ": ", "\t:\t"]))
def test_a_secret_without_quotes_is_masked(key: str, secret: str, separator: str) -> None:
    check(f"{PREFIX}it failed ", f"{key}{separator}{secret}", " a=1")
    check(f"{PREFIX}it failed ", f"--{key} {secret}", " a=1")


@given(st.text("abcXYZ019%+_-.:@!$'()*,;=", max_size=20))
def test_users_and_query_values_of_urls_are_masked(body: str) -> None:
    check(PREFIX, f"https://{FIRST}{body}{LAST}@registry.example/v2/", " failed")
    value = FIRST + body.replace("'", "") + LAST
    check(PREFIX, f"Get https://registry.example/v2/?a=1&sig={value}&c=2", " failed")


def test_a_long_line_takes_no_long_time() -> None:
    began = time.process_time()
    masked("token" * 20_000 + "=" + "a" * 500_000 + "\n" + "://x?a=b&" * 20_000)
    assert time.process_time() - began < 5
