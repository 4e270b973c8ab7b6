"""Encrypted layers: what is public of them is read or refused, whatever it is."""

from __future__ import annotations

import base64
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.errors import InvalidArgument
from noded.wire.jwe import decode, parse_jwe
from noded.wire.manifest import Manifest, layer_refs, parse_config, parse_manifest
from noded.wire.ocicrypt import CIPHER, is_encrypted, layer_key, wrapped_keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
MEMBERS = (
    "protected",
    "unprotected",
    "header",
    "recipients",
    "encrypted_key",
    "iv",
    "ciphertext",
    "tag",
    "aad",
)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def b64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def test_headers_of_a_recipient_are_put_together() -> None:
    protected = b64url(b'{"enc":"A256GCM"}')
    jwe = parse_jwe(
        json.dumps(
            {
                "protected": protected,
                "unprotected": {"kid": "k"},
                "recipients": [
                    {"header": {"alg": "RSA-OAEP"}, "encrypted_key": b64url(b"one")},
                    {"header": {"alg": "ECDH-ES+A256KW"}, "encrypted_key": b64url(b"two")},
                ],
                "iv": b64url(b"iv"),
                "ciphertext": b64url(b"text"),
                "tag": b64url(b"tag"),
                "aad": "eA",
            }
        ).encode()
    )
    assert [dict(one.header) for one in jwe.recipients] == [
        {"enc": "A256GCM", "kid": "k", "alg": "RSA-OAEP"},
        {"enc": "A256GCM", "kid": "k", "alg": "ECDH-ES+A256KW"},
    ]
    assert [one.encrypted_key for one in jwe.recipients] == [b"one", b"two"]
    assert (jwe.iv, jwe.ciphertext, jwe.tag) == (b"iv", b"text", b"tag")
    assert jwe.authenticated == f"{protected}.eA".encode()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"protected": "!"}, "protected is not base64url"),
        ({"protected": b64url(b"[]")}, "protected"),
        ({"protected": b64url(b'{"alg":"x"}'), "header": {"alg": "y"}}, "given twice"),
        ({"header": {"crit": ["x"]}}, "critical"),
        ({"header": {"zip": "DEF"}}, "compression"),
        ({"recipients": {}}, "recipients"),
        ({"recipients": [1]}, r"recipients\[0\]"),
        ({"iv": 1}, "iv"),
    ],
)
def test_a_malformed_jwe_names_its_member(fields: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        parse_jwe(json.dumps(fields).encode())


@given(JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(MEMBERS, JSON)))
def test_any_json_is_a_jwe_or_refused(value: object) -> None:
    with contextlib.suppress(InvalidArgument):
        assert parse_jwe(json.dumps(value).encode()).recipients is not None


@given(st.binary(max_size=100))
def test_base64url_is_read_as_it_was_written(data: bytes) -> None:
    assert decode(b64url(data), "x") == data


@pytest.mark.parametrize("place", ["public", "options"])
def test_both_places_of_the_authentication_code_are_known(place: str) -> None:
    """ocicrypt has had it beside the cipher's options, and among them."""
    code = b64(b"m" * 32)
    public = {
        "cipher": CIPHER,
        **({"hmac": code} if place == "public" else {"cipheroptions": {"hmac": code}}),
    }
    secret = {"symkey": b64(b"k" * 32), "cipheroptions": {"nonce": b64(b"n" * 16)}}
    key = layer_key(b64(json.dumps(public).encode()), json.dumps(secret).encode())
    assert (key.key, key.nonce, key.mac) == (b"k" * 32, b"n" * 16, b"m" * 32)
    assert "k" * 8 not in repr(key)
    assert b64(b"k" * 32) not in repr(key)


@given(JSON, JSON)
def test_any_options_are_read_or_refused_without_telling_the_key(public: object, secret: object) -> None:
    with pytest.raises(InvalidArgument):
        layer_key(b64(json.dumps(public).encode()), json.dumps(secret).encode())


def test_groups_of_recipients_are_split_and_bounded() -> None:
    assert wrapped_keys(f"{b64(b'one')},{b64(b'two')}") == (b"one", b"two")
    with pytest.raises(InvalidArgument, match="65 groups"):
        wrapped_keys(",".join(["eA=="] * 65))


def test_layers_keep_what_opens_them() -> None:
    diff_id = "sha256:" + "1" * 64
    layer = {
        "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
        "digest": "sha256:" + "2" * 64,
        "size": 9,
        "annotations": {
            "org.opencontainers.image.enc.keys.jwe": "keys",
            "org.opencontainers.image.enc.pubopts": "options",
        },
    }
    config = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": diff_id, "size": 2}
    manifest = parse_manifest(json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode())
    assert isinstance(manifest, Manifest)
    document = parse_config(json.dumps({"rootfs": {"type": "layers", "diff_ids": [diff_id]}}).encode())
    (ref,) = layer_refs(manifest, document)
    assert is_encrypted(ref.media_type)
    assert (ref.wrapped_keys, ref.cipher_options) == ("keys", "options")
