"""Stored credentials: files, precedence, helpers."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument, Unavailable
from noded.images.auth import Credentials, normalise, parse_auth_file, parse_helper_answer, scopes
from noded.images.tokens import basic_header, parse_token
from noded.model.image import Credential

ME = Credential(username="me", password="se:cret")


def auth(user: str = "me", password: str = "se:cret") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def find(path: Path, host: str, repository: str, *helpers: str) -> Credential | None:
    return trio.run(lambda: Credentials([path]).find(host, repository, helpers))


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


def test_the_longest_path_wins(tmp_path: Path) -> None:
    file = write(
        tmp_path / "auth.json",
        {"auths": {"q.io": auth("host"), "q.io/a": auth("org"), "q.io/a/b": auth("repository")}},
    )
    for repository, user in (("a/b", "repository"), ("a/c", "org"), ("x", "host"), ("ab", "host")):
        found = find(file, "q.io", repository)
        assert found is not None
        assert found.username == user
    assert find(file, "q.io:5000", "a/b") is None


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
)
def test_every_name_of_docker_hub_is_the_same(tmp_path: Path, key: str) -> None:
    file = write(tmp_path / "auth.json", {"auths": {key: auth()}})
    assert find(file, "docker.io", "library/busybox") == ME


def test_tokens_in_a_file_are_kept_apart_from_passwords(tmp_path: Path) -> None:
    entry = {"auth": base64.b64encode(b"00000000-0000:").decode(), "identitytoken": "refresh"}
    found = find(write(tmp_path / "config.json", {"auths": {"q.io": entry}}), "q.io", "a")
    assert found is not None
    assert found.identity_token == "refresh"


def test_a_missing_file_and_an_empty_entry_are_no_credential(tmp_path: Path) -> None:
    assert find(tmp_path / "none.json", "q.io", "a") is None
    assert find(write(tmp_path / "auth.json", {"auths": {"q.io": {}}}), "q.io", "a") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"auths": [1]}', "must be objects"),
        ('{"auths": {"q.io": 5}}', r"auths\['q.io'\] is not an object"),
        ('{"auths": {"q.io": {"auth": "%%%"}}}', r"auths\['q.io'\].auth is not base64"),
        ('{"auths": {"q.io": {"auth": "c2VjcmV0"}}}', "not base64 of USER:PASSWORD"),
        ('{"auths": {"q.io": {"auth": 5}}}', "auth is not a string"),
        ('{"credHelpers": {"q.io": 5}}', "credHelpers"),
    ],
)
def test_a_bad_file_is_named_without_its_secrets(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=f"auth.json.*{reason}") as caught:
        parse_auth_file(text.encode(), "/x/auth.json")
    assert "c2VjcmV0" not in str(caught.value)


@given(st.binary(max_size=80))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    try:
        parse_auth_file(data, "f")
    except InvalidArgument:
        return


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["auths", "credHelpers", "credsStore"]), json_values))
def test_any_document_is_read_or_refused(document: dict[str, Any]) -> None:
    try:
        parse_auth_file(json.dumps(document).encode(), "f")
    except InvalidArgument:
        return


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_login_survives_the_file(user: str, password: str) -> None:
    user, password = user.replace(":", ""), password.strip("\0")
    if not user and not password:
        return
    parsed = parse_auth_file(json.dumps({"auths": {"q.io": auth(user, password)}}).encode(), "f")
    assert parsed.logins["q.io"] == Credential(username=user, password=password)


def test_scopes_go_from_the_repository_to_the_host() -> None:
    assert scopes("q.io", "a/b") == ("q.io/a/b", "q.io/a", "q.io")
    assert normalise("https://q.io/v2/") == "q.io"


def helper(directory: Path, name: str, script: str) -> None:
    path = directory / f"docker-credential-{name}"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return directory


def test_a_helper_is_asked_for_its_host(tmp_path: Path, programs: Path) -> None:
    helper(programs, "vault", """read server; echo "{\\"Username\\":\\"$1\\",\\"Secret\\":\\"$server\\"}" """)
    file = write(tmp_path / "auth.json", {"credHelpers": {"q.io": "vault"}})
    assert find(file, "q.io", "a/b") == Credential(username="get", password="q.io")
    assert find(file, "other.io", "a/b") is None


def test_a_helper_that_knows_nothing_is_no_credential(tmp_path: Path, programs: Path) -> None:
    helper(programs, "vault", 'echo "credentials not found in native keychain"; exit 1')
    assert find(write(tmp_path / "auth.json", {"credsStore": "vault"}), "q.io", "a") is None
    assert find(tmp_path / "none", "q.io", "a", "containers-auth.json", "vault") is None


def test_a_helper_that_fails_says_why(tmp_path: Path, programs: Path) -> None:
    helper(programs, "vault", "echo the vault is sealed >&2; exit 3")
    with pytest.raises(Unavailable, match=r"docker-credential-vault failed for q.io: the vault is sealed"):
        find(tmp_path / "none", "q.io", "a", "vault")
    with pytest.raises(Unavailable, match=r"docker-credential-gone is configured but not in PATH"):
        find(tmp_path / "none", "q.io", "a", "gone")


def test_a_helper_may_give_an_identity_token() -> None:
    answer = json.dumps({"ServerURL": "q.io", "Username": "<token>", "Secret": "refresh"}).encode()
    assert parse_helper_answer(answer, "x") == Credential(identity_token="refresh")


@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_of_a_helper_is_read_or_refused(data: bytes) -> None:
    try:
        parse_helper_answer(data, "x")
    except Unavailable:
        return


@given(st.binary(max_size=40) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_answer_of_a_token_endpoint_is_read_or_refused(data: bytes) -> None:
    try:
        token, lifetime = parse_token(data)
    except ValueError:
        return
    assert token
    assert lifetime >= 60


@pytest.mark.parametrize("answer", [{"token": "a\nb"}, {"token": "é"}, {"token": ""}, {"token": 5}, {}])
def test_a_token_that_is_no_header_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="without a token"):
        parse_token(json.dumps(answer).encode())


def test_secrets_do_not_show_in_a_repr() -> None:
    assert "se:cret" not in repr(ME)
    assert basic_header(ME) == f"Basic {auth()['auth']}"
