from __future__ import annotations

import asyncio
import datetime
import ipaddress
import os
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from noded.config import StreamingConfig
from noded.edge.streaming import StreamingServer
from noded.edge.streaming_tls import TlsFiles
from noded.errors import InvalidArgument
from noded.streams.requests import CommandRequest


class Authority:
    """A certificate authority that writes PEM files."""

    def __init__(self, directory, name="ca"):
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(_pem(self._sign(self._name, self._key.public_key(), authority=True)))

    def issue(self, name):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        cert, private = self._directory / f"{name}.crt", self._directory / f"{name}.key"
        cert.write_bytes(_pem(self._sign(subject, key.public_key())))
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert, private

    def _sign(self, subject, key, *, authority=False):
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def ask(config, context):
    """Connect to a server with this configuration; return the head of its answer and its certificate."""

    async def main():
        server = StreamingServer(config, None)
        server.bind()
        server.start(None)
        try:
            url = server.exec_url(CommandRequest("c", ("x",), stdout=True))
            assert url.startswith("https://127.0.0.1:")
            port = int(url.split(":")[2].split("/")[0])
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"GET /exec/x HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n")
            writer.transport.abort()
            return head
        finally:
            await server.close()

    return asyncio.run(asyncio.wait_for(main(), 20))


def test_streams_are_served_over_tls(authority):
    cert, key = authority.issue("server")
    context = ssl.create_default_context(cafile=authority.path)
    head = ask(StreamingConfig(tls_cert=cert, tls_key=key), context)
    assert head.startswith(b"HTTP/1.1 404 ")


def test_clients_without_a_certificate_of_the_ca_are_refused(authority, tmp_path):
    cert, key = authority.issue("server")
    config = StreamingConfig(tls_cert=cert, tls_key=key, tls_client_ca=authority.path)
    for issuer in (None, Authority(tmp_path, "other")):
        context = ssl.create_default_context(cafile=authority.path)
        if issuer is not None:
            context.load_cert_chain(*issuer.issue("stranger"))
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            ask(config, context)
    context = ssl.create_default_context(cafile=authority.path)
    context.load_cert_chain(*authority.issue("client"))
    assert ask(config, context).startswith(b"HTTP/1.1 404 ")


def test_old_tls_versions_are_refused(authority):
    cert, key = authority.issue("server")
    context = ssl.create_default_context(cafile=authority.path)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(StreamingConfig(tls_cert=cert, tls_key=key), context)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(StreamingConfig(tls_cert=cert, tls_key=key, tls_min_version="1.3"), context)


def test_a_replaced_certificate_is_used_and_a_broken_one_is_not(authority):
    cert, key = authority.issue("server")
    files = TlsFiles(StreamingConfig(tls_cert=cert, tls_key=key))
    first = files.context()
    assert files.context() is first
    authority.issue("server")
    second = files.context()
    assert second is not first
    cert.write_text("nonsense")
    assert files.context() is second
    os.unlink(cert)
    assert files.context() is second


def test_files_that_are_no_good_are_named(authority, tmp_path):
    cert, key = authority.issue("server")
    with pytest.raises(InvalidArgument, match=r"streaming\.tls_key"):
        TlsFiles(StreamingConfig(tls_cert=cert))
    with pytest.raises(InvalidArgument, match=r"streaming\.tls_cert"):
        TlsFiles(StreamingConfig(tls_cert=tmp_path / "none", tls_key=key))
    with pytest.raises(InvalidArgument, match=r"streaming\.tls_client_ca"):
        TlsFiles(StreamingConfig(tls_cert=cert, tls_key=key, tls_client_ca=key))
