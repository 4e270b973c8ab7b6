"""One request to a registry, seen through to its final answer: login, redirects, retries.

Runs in worker threads under `Transport.call`. Keeps tokens, and the scheme of insecure hosts.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import trio

from noded.errors import DataLoss, InvalidArgument, PermissionDenied, RegistryUnavailable
from noded.images.endpoints import TLSFiles
from noded.images.http_faults import Fault, Trouble
from noded.images.refusals import Source, refused, unreached
from noded.images.tokens import (
    MAX_TOKEN_ANSWER,
    Account,
    Tokens,
    basic_header,
    parse_token,
    pick,
    token_request,
)
from noded.images.transport import Reply, Transport
from noded.wire import challenge as challenges

MAX_REDIRECTS: Final = 10
BASIC_SECONDS: Final = 86400.0  # basic logins do not expire; this only bounds how long one is kept
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Retry:
    """How long one endpoint is tried before the next one, or kubelet's own back-off, takes over."""

    attempts: int = 4  # of a request that meets a stall, a drop, 429 or 5xx
    unreachable_attempts: int = 2  # of a connection that cannot be made
    first_wait_seconds: float = 0.5  # doubled each time
    longest_wait_seconds: float = 10.0
    longest_retry_after_seconds: float = 60.0  # a registry that asks for more is given up

    def wait_seconds(self, failures: int) -> float:
        wait = min(self.first_wait_seconds * 2.0 ** (failures - 1), self.longest_wait_seconds)
        return wait * random.uniform(0.75, 1.0)  # so that many nodes do not come back in step


class Exchange:
    """Sends requests until an answer is final."""

    def __init__(self, transport: Transport, *, retry: Retry, tokens: Tokens) -> None:
        self.retry = retry
        self._transport = transport
        self._tokens = tokens
        self._schemes: dict[str, str] = {}  # of insecure endpoints, as far as known

    def request(self, source: Source, method: str, resource: str, headers: Mapping[str, str]) -> Reply:
        """Send until an answer is final, and return it if it is success.

        Args:
            resource: below the repository, such as `manifests/latest`.

        Raises: the error that `noded.images.refusals` makes of anything else.
        """
        failures = 0
        while True:
            failures += 1
            try:
                reply = self._authorized(source, method, resource, headers)
            except Fault as fault:
                if failures >= self._attempts(source, fault):
                    raise unreached(source, fault, resource) from fault
                wait = self.retry.wait_seconds(failures)
            else:
                if 200 <= reply.status < 300:
                    return reply
                if reply.status == 416:  # we resume within the size that the manifest gives
                    reply.drain()
                    raise DataLoss(
                        f"{source.subject} sent a damaged blob {resource.removeprefix('blobs/')}: "
                        "it is shorter than its manifest says"
                    )
                wait = _retry_after(reply) or self.retry.wait_seconds(failures)
                if (
                    reply.status not in _RETRIED
                    or failures >= self.retry.attempts
                    or wait > self.retry.longest_retry_after_seconds
                ):
                    raise refused(source, reply, resource, failures)
                reply.drain()
            self.sleep(wait)

    def _attempts(self, source: Source, fault: Fault) -> int:
        if fault.trouble in (Trouble.CERTIFICATE, Trouble.PROTOCOL):
            return 1
        if fault.trouble is Trouble.UNREACHABLE:  # behind a mirror there is another endpoint
            return 1 if source.endpoint.mirror else self.retry.unreachable_attempts
        return self.retry.attempts

    def _authorized(self, source: Source, method: str, resource: str, headers: Mapping[str, str]) -> Reply:
        account = Account(source.endpoint.host, source.endpoint.path, source.credential)
        header = self._tokens.header(account)
        reply = self._send(source, method, resource, headers, header)
        if reply.status != 401 or urlsplit(reply.url).netloc != source.endpoint.api_host:
            return reply  # a blob store's 401 is not for our credential
        if source.credential is not None and source.credential.registry_token:
            return reply
        self._tokens.forget(account)
        try:
            found = challenges.parse(reply.headers.getlist("WWW-Authenticate"))
        except InvalidArgument as error:
            reply.close()
            raise PermissionDenied(
                f"{source.subject} wants a login noded does not understand: {error}"
            ) from None
        challenge = pick(found, source.credential)
        if challenge is None:
            return reply
        reply.drain()
        if challenge.scheme == "basic" and source.credential is not None:
            header = basic_header(source.credential)
            self._tokens.keep(account, header, BASIC_SECONDS)
        else:
            header = self._bearer(source, challenge)
        reply = self._send(source, method, resource, headers, header)
        if reply.status == 401:
            self._tokens.forget(account)
        return reply

    def _bearer(self, source: Source, challenge: challenges.Challenge) -> str:
        endpoint = source.endpoint
        try:
            ask = token_request(
                challenge,
                endpoint.path,
                source.credential,
                cleartext_allowed=endpoint.insecure or endpoint.scheme == "http",
            )
        except PermissionDenied as error:
            raise PermissionDenied(f"{source.subject} cannot be logged in to: {error}") from None
        failures = 0
        while True:
            failures += 1
            reply = self._follow(ask.method, ask.url, ask.headers, "", source, ask.body)
            if reply.status not in _RETRIED or failures >= self.retry.attempts:
                break
            wait = _retry_after(reply) or self.retry.wait_seconds(failures)
            reply.drain()
            self.sleep(min(wait, self.retry.longest_retry_after_seconds))
        if reply.status == 400 and ask.method == "POST":  # how OAuth2 says that the token is not good
            raise refused(source, reply, "token", failures, status=401)
        if reply.status != 200:
            raise refused(source, reply, "token", failures)
        with reply:
            data = reply.body(MAX_TOKEN_ANSWER)
        try:
            token, lifetime = parse_token(data)
        except ValueError as error:
            raise RegistryUnavailable(f"{source.subject} cannot be logged in to: {error}") from None
        header = f"Bearer {token}"
        self._tokens.keep(Account(endpoint.host, endpoint.path, source.credential), header, lifetime)
        return header

    def _send(
        self, source: Source, method: str, resource: str, headers: Mapping[str, str], authorization: str
    ) -> Reply:
        """Over TLS; an insecure endpoint that turns out to have none, over plain HTTP."""
        endpoint, host = source.endpoint, source.endpoint.api_host
        address = f"{host}{endpoint.base}/{endpoint.path}/{resource}"
        if endpoint.namespace:
            address += f"?ns={quote(endpoint.namespace, safe='')}"
        if endpoint.scheme:
            return self._follow(method, f"{endpoint.scheme}://{address}", headers, authorization, source)
        scheme = self._schemes.get(host, "") if endpoint.insecure else "https"
        if scheme:
            try:
                return self._follow(method, f"{scheme}://{address}", headers, authorization, source)
            except Fault:
                self._schemes.pop(host, None)
                raise
        try:
            reply = self._follow(method, f"https://{address}", headers, authorization, source)
        except Fault as fault:
            if fault.trouble is Trouble.STALLED:  # it did speak TLS
                raise
            reply = self._follow(method, f"http://{address}", headers, authorization, source)
            # A TLS port answers 400 to plain HTTP; then it was TLS that failed.
            if reply.status == 400 and fault.trouble is not Trouble.PROTOCOL:
                reply.close()
                raise
            self._schemes[host] = "http"
        else:
            self._schemes[host] = "https"
        return reply

    def _follow(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str,
        source: Source,
        body: bytes | None = None,
    ) -> Reply:
        """Send and follow redirects. The Authorization header never leaves the origin it was meant for."""
        endpoint = source.endpoint
        secrets = {"Authorization": authorization} if authorization else {}
        if urlsplit(url).netloc == endpoint.api_host:  # and not a token realm elsewhere
            secrets = {**dict(endpoint.headers), **secrets}
        if "Authorization" in headers:
            secrets["Authorization"] = headers["Authorization"]
            headers = {key: value for key, value in headers.items() if key != "Authorization"}
        for _ in range(MAX_REDIRECTS):
            own = urlsplit(url).netloc == endpoint.api_host
            reply = self._transport.open(
                method,
                url,
                {**headers, **secrets},
                insecure=endpoint.insecure,
                probing=endpoint.insecure and not endpoint.scheme,
                body=body,
                files=endpoint.files if own else TLSFiles(),
            )
            location = reply.headers.get("Location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.drain()
            following = urljoin(url, location)
            scheme = urlsplit(following).scheme
            if scheme not in ("http", "https") or body is not None:
                raise Fault(
                    Trouble.PROTOCOL, f"it redirects {method} to {scheme}, which noded does not follow"
                )
            if scheme == "http" and urlsplit(url).scheme == "https" and not endpoint.insecure:
                raise Fault(Trouble.PROTOCOL, "it redirects from TLS to plain HTTP")
            if _origin(following) != _origin(url):
                secrets = {}
            url = following
        raise Fault(Trouble.PROTOCOL, f"it redirects more than {MAX_REDIRECTS} times")

    def sleep(self, seconds: float) -> None:
        """Wait in a worker thread; a cancellation ends it."""
        trio.from_thread.run(trio.sleep, seconds)


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port


def _retry_after(reply: Reply) -> float:
    """Seconds that the peer asks to wait, 0 when it does not say (RFC 9110 §10.2.3)."""
    value = reply.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
