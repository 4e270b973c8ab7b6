"""From a registry's challenge to an Authorization header (distribution-spec token authentication).

Bearer tokens are kept until shortly before they expire. A credential is answered with only where
the challenge allows: `identity_token` goes to the token endpoint, `registry_token` to the registry.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from noded.errors import PermissionDenied
from noded.model.image import Credential
from noded.wire.challenge import Challenge

CLIENT_ID: Final = "noded"
DEFAULT_LIFETIME_SECONDS: Final = 60.0  # what the token specification assumes without expires_in
MAX_TOKENS: Final = 512
MAX_TOKEN_ANSWER: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """An HTTP request for a bearer token."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a kept header belongs to: nobody else may use it."""

    host: str
    path: str
    credential: Credential | None


class Tokens:
    """Authorization headers kept per registry, repository and credential. Safe in threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: dict[Account, tuple[str, float]] = {}

    def header(self, account: Account) -> str:
        """The header to send at once, "" when the registry must be asked first."""
        if account.credential is not None and account.credential.registry_token:
            return f"Bearer {account.credential.registry_token}"
        with self._lock:
            header, expires = self._kept.get(account, ("", 0.0))
        return header if self._clock() < expires else ""

    def keep(self, account: Account, header: str, lifetime_seconds: float) -> None:
        # Renew a little early, so that a token never expires between here and the registry.
        expires = self._clock() + lifetime_seconds - min(10.0, lifetime_seconds / 10)
        with self._lock:
            if len(self._kept) >= MAX_TOKENS:
                self._kept.pop(next(iter(self._kept)))
            self._kept[account] = (header, expires)

    def forget(self, account: Account) -> None:
        """The registry refused the header."""
        with self._lock:
            self._kept.pop(account, None)


def basic_header(credential: Credential) -> str:
    """RFC 7617, in UTF-8."""
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def pick(challenges: Sequence[Challenge], credential: Credential | None) -> Challenge | None:
    """The challenge to answer: a bearer one with a realm, else basic if there is a password."""
    for challenge in challenges:
        if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
            return challenge
    if credential is not None and (credential.username or credential.password):
        return next((challenge for challenge in challenges if challenge.scheme == "basic"), None)
    return None


def token_request(
    challenge: Challenge, path: str, credential: Credential | None, *, cleartext_allowed: bool
) -> TokenRequest:
    """How to get the token that a bearer challenge asks for.

    Args:
        path: repository, for a challenge that names no scope.
        cleartext_allowed: whether the registry is configured insecure.

    Raises: PermissionDenied when the realm would see the credential in clear, or is no URL.
    """
    realm = challenge.parameters["realm"]
    parts = urlsplit(realm)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermissionDenied(f"its token realm {realm!r} is not a URL")
    if parts.scheme == "http" and not cleartext_allowed:
        raise PermissionDenied(
            f"it asks for logins in clear text at {realm}: "
            "set insecure = true for it in registries.conf to allow that"
        )
    query = {"service": challenge.parameters.get("service", "")}
    scope = challenge.parameters.get("scope") or f"repository:{path}:pull"
    if credential is not None and credential.identity_token:
        form = {
            "grant_type": "refresh_token",
            **query,
            "client_id": CLIENT_ID,
            "scope": scope,
            "refresh_token": credential.identity_token,
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return TokenRequest("POST", realm, headers, urlencode(form).encode())
    pairs = [(key, value) for key, value in query.items() if value]
    pairs += [("scope", part) for part in scope.split(" ") if part]
    headers = {}
    if credential is not None and (credential.username or credential.password):
        pairs.append(("account", credential.username))
        headers["Authorization"] = basic_header(credential)
    separator = "&" if parts.query else "?"
    return TokenRequest("GET", f"{realm}{separator}{urlencode(pairs, quote_via=quote)}", headers)


def parse_token(data: bytes) -> tuple[str, float]:
    """The token and its lifetime in seconds from a token endpoint's answer.

    Raises: ValueError without quoting the answer, which may hold secrets.
    """
    try:
        answer: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("its token endpoint did not answer in JSON") from None
    if not isinstance(answer, dict):
        raise ValueError("its token endpoint answered without a token")
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise ValueError("its token endpoint answered without a token")
    lifetime = answer.get("expires_in")
    if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not 0 < lifetime < 1e9:
        lifetime = DEFAULT_LIFETIME_SECONDS
    return token, max(float(lifetime), DEFAULT_LIFETIME_SECONDS)
