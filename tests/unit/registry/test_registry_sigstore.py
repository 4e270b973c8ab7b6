"""Keys that may sign images."""

from __future__ import annotations

import pytest

from noded.errors import InvalidArgument
from noded.images.trust.sigstore import Attachment, is_signed_by

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def signed_by_rsa(bits: int) -> tuple[Attachment, bytes]:
    key = rsa.generate_private_key(65537, bits)
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Attachment(b"text", key.sign(b"text", padding.PKCS1v15(), SHA256())), pem


def test_a_short_rsa_key_is_refused_and_a_longer_one_is_not() -> None:
    attachment, pem = signed_by_rsa(2048)
    assert is_signed_by(attachment, [pem])
    attachment, pem = signed_by_rsa(1024)
    with pytest.raises(InvalidArgument, match="has 1024 bits: take one of 2048 or more"):
        is_signed_by(attachment, [pem])


def test_a_file_that_is_no_key_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="holds no PEM public key"):
        is_signed_by(Attachment(b"text", b"signature"), [b"no key"])
