"""TLS, certificates per host, proxies, and cancels before the first byte."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from registry_fakes import FakeRegistry, Handler, drop_after

from noded.errors import FailedPrecondition, InvalidArgument, RegistryUnavailable
from noded.images.endpoints import Endpoint
from noded.images.exchange import Retry
from noded.images.proxies import Proxies
from noded.images.refusals import Source
from noded.images.registry import RegistryClient
from noded.images.transport import Transport
from tests.support.images import Entry, build, sha256, tar

T = TypeVar("T")
FAST = Retry(first_wait_seconds=0.01, longest_wait_seconds=0.02)
IMAGE = build([tar([Entry("a", b"x")])], compression="none")
BLOB = bytes(range(256)) * 4096


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and registry.test, with its key, in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry.test")])
    today = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("registry.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + signed.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def registry(certificate: Path) -> Iterator[FakeRegistry]:
    fake = FakeRegistry()
    fake.use_tls(certificate)
    fake.push(IMAGE, "a", "t")
    fake.content.blobs[sha256(BLOB)] = BLOB
    with fake:
        yield fake


def run(
    work: Callable[[RegistryClient], Awaitable[T]],
    certs: Path = Path("/nonexistent"),
    proxies: Proxies | None = None,
    **options: Any,
) -> T:
    async def main() -> T:
        transport = Transport(certs_dirs=(certs,), proxies=proxies, **options)
        try:
            with trio.fail_after(30):
                return await work(RegistryClient(transport, retry=FAST))
        finally:
            transport.close()

    return trio.run(main)


def source(host: str, *, insecure: bool = False) -> Source:
    return Source(Endpoint(host, "a", insecure=insecure), None, "x.io/a:t")


async def pull(client: RegistryClient, where: Source) -> str:
    return (await client.manifest(where, "t")).digest


def test_an_unknown_certificate_is_refused_with_the_cure(registry: FakeRegistry) -> None:
    with pytest.raises(
        FailedPrecondition, match=f"put its CA into /etc/containers/certs.d/{registry.host}/ca.crt"
    ):
        run(lambda client: pull(client, source(registry.host)))
    assert registry.requests == []


def test_a_ca_for_the_host_is_trusted_as_soon_as_it_is_there(
    registry: FakeRegistry, certificate: Path, tmp_path: Path
) -> None:
    pem = certificate.read_bytes()

    async def work(client: RegistryClient) -> None:
        with pytest.raises(FailedPrecondition):
            await pull(client, source(registry.host))
        place = tmp_path / registry.host
        place.mkdir()
        (place / "ca.crt").write_bytes(pem)
        assert await pull(client, source(registry.host)) == IMAGE.digest

    run(work, tmp_path)


def test_a_bad_ca_file_is_named(registry: FakeRegistry, tmp_path: Path) -> None:
    (tmp_path / registry.host).mkdir()
    bad = tmp_path / registry.host / "ca.crt"
    bad.write_text("no certificate")
    with pytest.raises(InvalidArgument, match=f"{bad} cannot be used for TLS"):
        run(lambda client: pull(client, source(registry.host)), tmp_path)


def test_an_insecure_registry_may_have_any_certificate(registry: FakeRegistry) -> None:
    assert run(lambda client: pull(client, source(registry.host, insecure=True))) == IMAGE.digest


def test_a_drop_over_tls_is_resumed_over_tls(registry: FakeRegistry) -> None:
    registry.on("blobs", drop_after(300_000))
    received = bytearray()

    async def work(client: RegistryClient) -> None:
        where = source(registry.host, insecure=True)
        await client._transport.call(client.download, where, sha256(BLOB), len(BLOB), received.extend)

    run(work)
    assert bytes(received) == BLOB
    assert [one.headers.get("range") for one in registry.requests] == [None, "bytes=300000-"]


@contextlib.contextmanager
def silent_server(*, backlog: int = 16) -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("insecure", [False, True])
def test_a_cancel_ends_a_tls_handshake_that_hangs(insecure: bool) -> None:
    async def work(client: RegistryClient) -> float:
        started = trio.current_time()
        with trio.move_on_after(0.3):
            await pull(client, source(host, insecure=insecure))
        return trio.current_time() - started

    with silent_server() as host:
        assert run(work) < 1.3


def test_a_tls_handshake_that_hangs_is_given_up() -> None:
    with silent_server() as host, pytest.raises(RegistryUnavailable, match="no TLS handshake in time"):
        run(lambda client: pull(client, source(host)), connect_seconds=0.1)


def test_a_cancel_ends_a_connect_that_hangs() -> None:
    async def work(client: RegistryClient) -> float:
        started = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            await pull(client, source(host))
        assert scope.cancelled_caught
        return trio.current_time() - started

    with silent_server(backlog=0) as host, contextlib.ExitStack() as fillers:
        address, port = host.split(":")
        for _ in range(4):  # fill the accept queue: the kernel then drops further SYNs
            filler = fillers.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((address, int(port)))
        assert run(work) < 1.3


def test_plain_http_goes_through_the_proxy() -> None:
    with FakeRegistry() as proxy:
        proxy.push(IMAGE, "a", "t")
        where = source("registry.test:81", insecure=True)
        proxies = Proxies(http=f"http://user:pass@{proxy.host}")
        assert run(lambda client: pull(client, where), proxies=proxies, connect_seconds=2) == IMAGE.digest
        assert proxy.requests[-1].headers["proxy-authorization"] == "Basic dXNlcjpwYXNz"
        assert proxy.requests[-1].headers["host"] == "registry.test:81"


def test_tls_goes_through_a_tunnel_of_the_proxy(
    registry: FakeRegistry, certificate: Path, tmp_path: Path
) -> None:
    asked: list[str] = []

    def tunnel(handler: Handler) -> bool:
        asked.append(handler.path)
        address, port = registry.host.split(":")
        with socket.create_connection((address, int(port))) as inner:
            handler.send_response_only(200)
            handler.end_headers()
            forth = threading.Thread(target=pump, args=(handler.connection, inner), daemon=True)
            forth.start()
            pump(inner, handler.connection)
            forth.join()
        handler.close_connection = True
        return True

    place = tmp_path / "registry.test:444"
    place.mkdir()
    (place / "ca.crt").write_bytes(certificate.read_bytes())
    with FakeRegistry() as proxy:
        proxy.on("CONNECT", tunnel)
        proxies = Proxies(https=f"http://{proxy.host}")
        where = source("registry.test:444")
        assert run(lambda client: pull(client, where), tmp_path, proxies) == IMAGE.digest
    assert asked == ["registry.test:444"]
    assert registry.requests[0].headers["host"] == "registry.test:444"


def pump(from_socket: socket.socket, to_socket: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := from_socket.recv(65536):
            to_socket.sendall(data)
    for one in (from_socket, to_socket):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def test_a_proxy_of_another_kind_is_refused() -> None:
    proxies = Proxies(https="socks5://127.0.0.1:1")
    with pytest.raises(InvalidArgument, match=r"proxy socks5://127.0.0.1 in the environment"):
        run(lambda client: pull(client, source("registry.test")), proxies=proxies)
