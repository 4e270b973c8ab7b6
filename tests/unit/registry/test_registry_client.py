"""The registry client against a registry that misbehaves."""

from __future__ import annotations

import base64
import gc
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import trio
from registry_fakes import FakeRegistry, drop_after, hang_up, redirect, send, stall, status

from noded.errors import (
    DataLoss,
    FailedPrecondition,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
)
from noded.images.endpoints import Endpoint
from noded.images.exchange import Retry
from noded.images.leash import Lifeline
from noded.images.refusals import Source
from noded.images.registry import Fetched, RegistryClient
from noded.images.tokens import Tokens
from noded.images.transport import Transport
from noded.model.image import Credential
from tests.support.images import Entry, build, sha256, tar

T = TypeVar("T")
FAST = Retry(first_wait_seconds=0.01, longest_wait_seconds=0.02, longest_retry_after_seconds=2)
IMAGE = build([tar([Entry("a", b"x" * 100)])], compression="none")
LOGIN = Credential(username="me", password="sécret:with colon")
BLOB = bytes(range(256)) * 2048  # 512 KiB
BLOB_DIGEST = sha256(BLOB)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as fake:
        fake.push(IMAGE, "a/b", "t")
        fake.content.blobs[BLOB_DIGEST] = BLOB
        yield fake


def source(registry: FakeRegistry, credential: Credential | None = None) -> Source:
    return Source(Endpoint(registry.host, "a/b", insecure=True), credential, "quay.io/a/b:t")


def run(work: Callable[[RegistryClient], Awaitable[T]], *, retry: Retry = FAST, stall: float = 5.0) -> T:
    async def main() -> T:
        transport = Transport(stall_seconds=stall, connect_seconds=5)
        try:
            with trio.fail_after(30):
                return await work(RegistryClient(transport, retry=retry))
        finally:
            transport.close()

    return trio.run(main)


def get(
    registry: FakeRegistry, credential: Credential | None = None, target: str = "t", **options: float
) -> Fetched:
    return run(lambda client: client.manifest(source(registry, credential), target), **options)


def failure(registry: FakeRegistry, credential: Credential | None = None, target: str = "t") -> NodedError:
    with pytest.raises(NodedError) as caught:
        get(registry, credential, target)
    return caught.value


def download(
    registry: FakeRegistry, size: int = len(BLOB), digest: str = BLOB_DIGEST, stall: float = 5.0
) -> bytes:
    received = bytearray()

    async def main() -> None:
        transport = Transport(stall_seconds=stall, connect_seconds=5)
        client = RegistryClient(transport, retry=FAST)
        try:
            with trio.fail_after(30):
                await transport.call(client.download, source(registry), digest, size, received.extend)
        finally:
            transport.close()

    trio.run(main)
    return bytes(received)


def test_a_manifest_comes_by_tag_and_by_digest(registry: FakeRegistry) -> None:
    fetched = get(registry)
    assert (fetched.data, fetched.media_type, fetched.digest) == (
        IMAGE.manifest,
        IMAGE.media_type,
        IMAGE.digest,
    )
    assert get(registry, target=IMAGE.digest).digest == IMAGE.digest
    asked = registry.requests[-1]
    assert "application/vnd.oci.image.index.v1+json" in asked.headers["accept"]
    assert asked.headers["user-agent"].startswith("noded/")


def test_the_digest_of_a_tag_costs_one_head(registry: FakeRegistry) -> None:
    assert run(lambda client: client.manifest_digest(source(registry), "t")) == IMAGE.digest
    assert registry.count("HEAD /v2/a/b/manifests/t") == 1
    assert registry.count("GET") == 0
    registry.content.with_digest_header = False
    assert run(lambda client: client.manifest_digest(source(registry), "t")) == ""


def test_a_manifest_with_another_digest_is_data_loss(registry: FakeRegistry) -> None:
    registry.content.manifests[f"a/b/{IMAGE.digest}"] = (b"{}", IMAGE.media_type)
    error = failure(registry, target=IMAGE.digest)
    assert isinstance(error, DataLoss)
    assert "quay.io/a/b:t" in str(error)
    assert registry.host in str(error)
    registry.on("GET .*/t", send(IMAGE.manifest, Docker_Content_Digest=sha256(b"other")))
    assert isinstance(failure(registry), DataLoss)


def test_an_endless_manifest_is_refused(registry: FakeRegistry) -> None:
    registry.on("GET", send(b" " * (5 << 20)))
    assert "larger than" in str(failure(registry))


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (400, FailedPrecondition, "answered 400"),
        (401, PermissionDenied, "wants a login"),
        (403, PermissionDenied, "forbids it (fault 403)"),
        (404, NotFound, "has no such image (fault 404)"),
        (429, RegistryUnavailable, "limits requests"),
        (500, RegistryUnavailable, "answered 500 4 times (fault 500)"),
        (503, RegistryUnavailable, "answered 503 4 times"),
    ],
)
def test_each_refusal_has_its_class_and_names_image_and_endpoint(
    registry: FakeRegistry, code: int, kind: type[NodedError], words: str
) -> None:
    registry.on("GET", status(code), times=99)
    error = failure(registry)
    assert type(error) is kind
    assert words in str(error)
    assert f"cannot pull quay.io/a/b:t: registry {registry.host}" in str(error)
    assert str(error).startswith("RegistryUnavailable: ") == (kind is RegistryUnavailable)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
def test_a_passing_failure_is_retried(registry: FakeRegistry, code: int) -> None:
    registry.on("GET", status(code), times=3)
    assert get(registry).digest == IMAGE.digest
    assert registry.count("GET") == 4


def test_retry_after_is_kept_and_bounded(registry: FakeRegistry) -> None:
    registry.on("GET", status(429, Retry_After="1"))
    assert get(registry).digest == IMAGE.digest
    registry.on("GET", status(429, Retry_After="3600"))
    assert isinstance(failure(registry), RegistryUnavailable)
    registry.on("GET", status(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"))
    assert get(registry).digest == IMAGE.digest


def test_a_connection_that_is_hung_up_is_tried_again(registry: FakeRegistry) -> None:
    registry.on("GET", hang_up, times=2)
    assert get(registry).digest == IMAGE.digest


def test_a_registry_that_is_down_is_unavailable() -> None:
    with FakeRegistry() as gone:
        pass
    error = failure(gone)
    assert isinstance(error, RegistryUnavailable)
    assert "cannot be reached" in str(error)
    assert "refused" in str(error)


def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    async def main() -> None:
        client = RegistryClient(Transport(), retry=FAST)
        with pytest.raises(RegistryUnavailable, match="name cannot be resolved"):
            await client.manifest(Source(Endpoint("no.such.host.invalid", "a"), None, "x/a:t"), "t")

    trio.run(main)


def test_a_registry_without_tls_must_be_configured_insecure(registry: FakeRegistry) -> None:
    secure = replace(source(registry), endpoint=Endpoint(registry.host, "a/b"))
    with pytest.raises(FailedPrecondition, match="insecure = true"):
        run(lambda client: client.manifest(secure, "t"))
    assert registry.requests == []


def test_a_stalled_registry_is_given_up(registry: FakeRegistry) -> None:
    registry.on("GET", stall(), times=9)
    with pytest.raises(RegistryUnavailable, match="stalled"):
        get(registry, stall=0.1)
    assert registry.count("GET") == FAST.attempts


@pytest.mark.parametrize("after", [-1, 1000])
def test_a_cancel_ends_a_stalled_exchange_at_once(registry: FakeRegistry, after: int) -> None:
    registry.on("GET", stall(after), times=9)

    async def main() -> float:
        transport = Transport(stall_seconds=600)
        client = RegistryClient(transport, retry=FAST)
        started = trio.current_time()
        with trio.move_on_after(0.3) as scope:
            await transport.call(
                client.download, source(registry), BLOB_DIGEST, len(BLOB), bytearray().extend
            )
        assert scope.cancelled_caught
        transport.close()
        return trio.current_time() - started

    assert trio.run(main) < 1.3


def test_a_cancel_ends_a_wait_between_retries_at_once(registry: FakeRegistry) -> None:
    registry.on("GET", status(503, Retry_After="50"), times=9)

    async def main() -> float:
        client = RegistryClient(Transport(), retry=Retry())
        started = trio.current_time()
        with trio.move_on_after(0.3):
            await client.manifest(source(registry), "t")
        return trio.current_time() - started

    assert trio.run(main) < 1.3


def test_a_dropped_download_is_resumed_where_it_ended(registry: FakeRegistry) -> None:
    registry.on("GET .*/blobs/", drop_after(200_000))
    registry.on("GET .*/blobs/", drop_after(100_000))
    assert download(registry) == BLOB
    ranges = [one.headers.get("range") for one in registry.requests]
    assert ranges == [None, "bytes=200000-", "bytes=300000-"]


def test_a_download_resumes_at_a_server_without_ranges(registry: FakeRegistry) -> None:
    registry.content.ranges = False
    registry.on("GET .*/blobs/", drop_after(300_001))
    assert download(registry) == BLOB


def test_a_stalled_download_is_resumed(registry: FakeRegistry) -> None:
    registry.on("GET .*/blobs/", stall(after=150_000))
    assert download(registry, stall=0.2) == BLOB
    assert registry.requests[-1].headers["range"] == "bytes=150000-"


def test_a_download_that_makes_no_progress_ends(registry: FakeRegistry) -> None:
    registry.on("GET .*/blobs/", drop_after(10), times=99)
    with pytest.raises(RegistryUnavailable, match="broke the connection"):
        download(registry)
    assert registry.count("blobs") == FAST.attempts


def test_a_download_that_creeps_on_goes_on(registry: FakeRegistry) -> None:
    registry.content.blobs[BLOB_DIGEST] = big = BLOB * 4
    registry.on("GET .*/blobs/", drop_after(300_000), times=6)
    assert download(registry, len(big)) == big


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_blob_of_another_length_is_data_loss(registry: FakeRegistry, difference: int) -> None:
    with pytest.raises(DataLoss, match=f"it has {len(BLOB)} bytes, its manifest says"):
        download(registry, len(BLOB) + difference)


def test_a_blob_that_got_shorter_meanwhile_is_data_loss(registry: FakeRegistry) -> None:
    registry.on("GET .*/blobs/", drop_after(400_000))

    def shrink(handler: Any) -> bool:
        registry.content.blobs[BLOB_DIGEST] = BLOB[:300_000]
        return False

    registry.on("GET .*/blobs/", shrink)
    with pytest.raises(DataLoss, match="shorter"):
        download(registry)


def test_an_empty_blob_is_not_asked_for(registry: FakeRegistry) -> None:
    assert download(registry, 0, sha256(b"")) == b""
    assert registry.requests == []


def test_a_missing_blob_is_named(registry: FakeRegistry) -> None:
    with pytest.raises(NotFound, match=f"lacks blobs/{sha256(b'no')}"):
        download(registry, 2, sha256(b"no"))


def test_basic_login_is_sent_after_the_challenge_and_kept(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.login = "basic", (LOGIN.username, LOGIN.password)

    async def twice(client: RegistryClient) -> None:
        await client.manifest(source(registry, LOGIN), "t")
        await client.manifest(source(registry, LOGIN), "t")

    run(twice)
    sent = [bool(one) for one in registry.authorizations()]
    assert sent == [False, True, True]


def test_a_bearer_token_is_fetched_once_per_repository_and_credential(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.login = "bearer", (LOGIN.username, LOGIN.password)

    async def twice(client: RegistryClient) -> None:
        await client.manifest(source(registry, LOGIN), "t")
        await client.manifest(source(registry, LOGIN), "t")
        with pytest.raises(PermissionDenied):
            await client.manifest(source(registry), "t")

    run(twice)
    token = next(one for one in registry.requests if one.path == "/token")
    assert token.query == {"service": ["fake"], "scope": ["repository:a/b:pull"], "account": ["me"]}
    assert registry.count("/token") == 2
    assert registry.authorizations()[2:4] == ["Bearer token-0", "Bearer token-0"]


def test_an_anonymous_token_is_fetched_without_a_login(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.anonymous = "bearer", True
    assert get(registry).digest == IMAGE.digest
    assert registry.requests[1].headers.get("authorization") is None


def test_an_identity_token_is_exchanged(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.refresh_tokens = "bearer", {"refresh"}
    assert get(registry, Credential(identity_token="refresh")).digest == IMAGE.digest
    assert registry.count("POST /token") == 1
    assert isinstance(failure(registry, Credential(identity_token="old")), PermissionDenied)


def test_a_registry_token_is_sent_as_it_is(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.tokens = "bearer", {"given"}
    assert get(registry, Credential(registry_token="given")).digest == IMAGE.digest
    assert registry.authorizations() == ["Bearer given"]
    error = failure(registry, Credential(registry_token="wrong"))
    assert isinstance(error, PermissionDenied)
    assert "refused the login" in str(error)
    assert registry.count("/token") == 0


def test_a_wrong_password_is_permission_denied_and_never_shown(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.login = "bearer", ("me", "right")
    error = failure(registry, LOGIN)
    assert isinstance(error, PermissionDenied)
    assert "wrong user name or password" in str(error)
    assert LOGIN.password not in repr(error)
    assert base64.b64encode(b"me:").decode().rstrip("=") not in repr(error)


def test_a_token_that_expires_midway_is_renewed(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.anonymous = "bearer", True

    async def work(client: RegistryClient) -> None:
        await client.manifest(source(registry), "t")
        registry.content.tokens = {"rest-of-the-names"}
        await client.manifest(source(registry), "t")

    run(work)
    assert registry.count("/token") == 2


def test_a_token_is_renewed_before_it_expires(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.anonymous = "bearer", True
    now = 0.0

    async def main() -> None:
        nonlocal now
        client = RegistryClient(Transport(), retry=FAST, tokens=Tokens(clock=lambda: now))
        await client.manifest(source(registry), "t")
        now = 289.0
        await client.manifest(source(registry), "t")
        assert registry.count("/token") == 1
        now = 291.0
        await client.manifest(source(registry), "t")

    trio.run(main)
    assert registry.count("/token") == 2


def test_a_login_is_not_sent_to_a_token_server_in_clear_text(registry: FakeRegistry) -> None:
    from noded.images.tokens import token_request
    from noded.wire.challenge import Challenge

    challenge = Challenge("bearer", {"realm": "http://auth.example/token"})
    with pytest.raises(PermissionDenied, match="clear text"):
        token_request(challenge, "a", LOGIN, cleartext_allowed=False)
    with pytest.raises(PermissionDenied, match="not a URL"):
        token_request(Challenge("bearer", {"realm": "file:///etc/passwd"}), "a", None, cleartext_allowed=True)


def test_a_redirect_to_another_host_does_not_get_the_login(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.anonymous = "bearer", True
    with FakeRegistry() as store:
        store.content.blobs = registry.content.blobs
        registry.content.tokens = {"t"}
        registry.on("GET .*/blobs/", redirect(f"http://{store.host}{{path}}"), times=9)
        received = bytearray()

        async def work(client: RegistryClient) -> None:
            login = source(registry, Credential(registry_token="t"))
            await client._transport.call(client.download, login, BLOB_DIGEST, len(BLOB), received.extend)

        run(work)
        assert bytes(received) == BLOB
        assert registry.authorizations() == ["Bearer t"]
        assert store.authorizations() == [""]


def test_a_redirect_back_does_not_get_the_login_again(registry: FakeRegistry) -> None:
    with FakeRegistry() as store:
        registry.content.auth, registry.content.tokens = "bearer", {"t"}
        registry.on("GET .*/blobs/", redirect(f"http://{store.host}{{path}}"))
        store.on("GET", redirect(f"http://{registry.host}{{path}}"))

        async def work(client: RegistryClient) -> None:
            login = source(registry, Credential(registry_token="t"))
            with pytest.raises(PermissionDenied):
                await client._transport.call(
                    client.download, login, BLOB_DIGEST, len(BLOB), bytearray().extend
                )

        run(work)
        assert registry.authorizations() == ["Bearer t", ""]


def test_a_redirect_on_the_same_host_keeps_the_login(registry: FakeRegistry) -> None:
    registry.content.auth, registry.content.tokens = "bearer", {"t"}
    registry.on("GET .*/t$", redirect(f"/v2/a/b/manifests/{IMAGE.digest}"))
    assert get(registry, Credential(registry_token="t")).digest == IMAGE.digest
    assert registry.authorizations() == ["Bearer t", "Bearer t"]


def test_a_401_of_a_blob_store_does_not_draw_the_login(registry: FakeRegistry) -> None:
    with FakeRegistry() as store:
        store.on("GET", status(401, WWW_Authenticate='Basic realm="give it to me"'), times=9)
        registry.content.auth, registry.content.login = "basic", (LOGIN.username, LOGIN.password)
        registry.on("GET .*/blobs/", redirect(f"http://{store.host}{{path}}"), times=9)

        async def work(client: RegistryClient) -> None:
            await client.manifest(source(registry, LOGIN), "t")
            with pytest.raises(PermissionDenied, match=f"at {store.host}"):
                await client._transport.call(
                    client.download, source(registry, LOGIN), BLOB_DIGEST, len(BLOB), bytearray().extend
                )

        run(work)
        assert store.authorizations() == [""]


def test_redirects_in_a_circle_end(registry: FakeRegistry) -> None:
    registry.on("GET", redirect("{path}"), times=99)
    assert "redirects more than" in str(failure(registry))


def test_a_redirect_to_a_file_is_not_followed(registry: FakeRegistry) -> None:
    registry.on("GET", redirect("file:///etc/passwd"))
    assert "does not follow" in str(failure(registry))


def test_connections_are_used_again(registry: FakeRegistry) -> None:
    ports: set[int] = set()

    def note(handler: Any) -> bool:
        ports.add(handler.client_address[1])
        return False

    registry.on("GET", note, times=99)

    async def work(client: RegistryClient) -> None:
        for _ in range(5):
            await client.manifest(source(registry), "t")

    run(work)
    assert len(ports) == 1


def test_broken_and_cancelled_exchanges_leave_no_socket(registry: FakeRegistry) -> None:
    faults = [drop_after(100), hang_up, stall(), stall(after=100)]

    async def main() -> None:
        transport = Transport(stall_seconds=0.1)
        client = RegistryClient(transport, retry=FAST)
        for number in range(16):
            registry.on("GET", faults[number % 4])
            with trio.move_on_after(0.02 * (number % 5) + 0.01):
                await transport.call(client.download, source(registry), BLOB_DIGEST, len(BLOB), len)
        transport.close()

    trio.run(main)
    gc.collect()
    assert [one for one in gc.get_objects() if isinstance(one, Lifeline) and one.is_open] == []
