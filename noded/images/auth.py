"""Stored registry credentials: containers-auth.json(5), Docker's config.json and credential helpers.

A file maps `host[:port][/namespace...]` to a login; the entry with the longest path that covers the
repository wins. A credential helper is a program `docker-credential-NAME` that takes a server's
name on stdin and prints JSON (docker-credential-helpers protocol, verb `get`).
"""

from __future__ import annotations

import base64
import binascii
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import trio

from noded.errors import InvalidArgument, Unavailable
from noded.model.image import Credential

DEFAULT_FILES: Final = (
    Path("/run/containers/0/auth.json"),  # where podman and skopeo logins of root are
    Path("/root/.config/containers/auth.json"),
    Path("/root/.docker/config.json"),
    Path("/var/lib/kubelet/config.json"),  # the node's own pull secret, as kubelet reads it
)
HELPER_SECONDS: Final = 20.0  # a helper may call a cloud's metadata service
MAX_FILE_BYTES: Final = 4 << 20
MAX_HELPER_OUTPUT: Final = 64 * 1024
_HUB_KEYS: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
_REFRESH_USER: Final = "<token>"  # a helper's user name for "the secret is an identity token"


@dataclass(frozen=True, slots=True)
class RawAuthFile:
    """What was read of a file that may be gone by now. The secrets in it never show in its repr."""

    source: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFile:
    """One parsed file. Keys are normalised: no scheme, no trailing slash, no /v1 or /v2."""

    source: str
    logins: Mapping[str, Credential]
    helpers: Mapping[str, str]
    default_helper: str = ""


def parse_auth_file(data: bytes, source: str) -> AuthFile:
    """Read auth.json or config.json. Pure.

    Raises: InvalidArgument naming the file and entry; the message never has a secret in it.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):  # the JSON error would quote the text, which holds secrets
        raise InvalidArgument(f"{source} is not JSON: write it anew with `skopeo login`") from None
    if not isinstance(document, dict):
        raise InvalidArgument(f"{source} is not a JSON object")
    auths, helpers = document.get("auths") or {}, document.get("credHelpers") or {}
    store = document.get("credsStore") or ""
    if not isinstance(auths, dict) or not isinstance(helpers, dict) or not isinstance(store, str):
        raise InvalidArgument(f"{source}: auths and credHelpers must be objects, credsStore a string")
    logins = {}
    for key, entry in auths.items():
        if not isinstance(entry, dict):
            raise InvalidArgument(f"{source}: auths[{key!r}] is not an object")
        credential = _login(entry, f"{source}: auths[{key!r}]")
        if credential is not None:
            logins[normalise(key)] = credential
    for key, program in helpers.items():
        if not isinstance(program, str):
            raise InvalidArgument(f"{source}: credHelpers[{key!r}] is not a string")
    return AuthFile(source, logins, {normalise(key): value for key, value in helpers.items()}, store)


def normalise(key: str) -> str:
    """An `auths` key as `host[:port][/path]`; old Docker keys are URLs such as https://host/v1/."""
    key = key.partition("://")[2] if "://" in key else key
    key = key.rstrip("/")
    for version in ("/v1", "/v2"):
        key = key.removesuffix(version)
    host, slash, path = key.partition("/")
    return f"{'docker.io' if host in _HUB_KEYS else host}{slash}{path}"


def scopes(host: str, path: str) -> tuple[str, ...]:
    """The keys that cover a repository, longest first: host/a/b, host/a, host."""
    host = "docker.io" if host in _HUB_KEYS else host
    parts = path.split("/")
    return (*(f"{host}/{'/'.join(parts[:length])}" for length in range(len(parts), 0, -1)), host)


class Credentials:
    """Finds the stored credential of a repository.

    Files are read at each question, so a login counts at once.

    Args:
        files: in the order of precedence; missing ones are skipped.
    """

    def __init__(self, files: Sequence[Path] = DEFAULT_FILES) -> None:
        self._files = tuple(files)

    async def find(
        self, host: str, path: str, helpers: Sequence[str] = (), first: Sequence[Path | RawAuthFile] = ()
    ) -> Credential | None:
        """The credential for `host/path`, None when nobody knows one.

        Args:
            helpers: programs asked for any host when no file knows it (`credential-helpers` of
                registries.conf without its reserved word `containers-auth.json`).
            first: files that go before the others.

        Raises: InvalidArgument for a bad file; Unavailable when a helper fails.
        """
        files = await trio.to_thread.run_sync(_read, (*first, *self._files))
        keys = scopes(host, path)
        for file in files:
            for key in keys:
                if program := file.helpers.get(key):
                    found = await ask_helper(program, key)
                    if found is not None:
                        return found
                if credential := file.logins.get(key):
                    return credential
            if file.default_helper and (found := await ask_helper(file.default_helper, _server(host))):
                return found
        for program in helpers:
            if program != "containers-auth.json" and (found := await ask_helper(program, _server(host))):
                return found
        return None


def read_open(stream: IO[bytes], name: Path) -> RawAuthFile:
    """A file of logins, bounded. Blocks. Raises: InvalidArgument when it cannot be read."""
    try:
        return RawAuthFile(str(name), stream.read(MAX_FILE_BYTES))
    except OSError as error:
        raise unreadable(name, error) from error


def unreadable(name: Path, error: OSError) -> InvalidArgument:
    """The error to raise for a file of logins that cannot be opened or read."""
    return InvalidArgument(f"{name} cannot be read: {error.strerror}")


def _read(files: Sequence[Path | RawAuthFile]) -> list[AuthFile]:
    parsed = []
    for file in files:
        raw = file if isinstance(file, RawAuthFile) else _raw(file)
        if raw is not None:
            parsed.append(parse_auth_file(raw.data, raw.source))
    return parsed


def _raw(name: Path) -> RawAuthFile | None:
    try:
        with name.open("rb") as stream:
            return read_open(stream, name)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(name, error) from error


async def ask_helper(name: str, server: str) -> Credential | None:
    """Run `docker-credential-NAME get` for one server.

    Cancellation: kills the helper.
    Raises: Unavailable when it cannot run, fails, or answers nonsense.
    """
    program = f"docker-credential-{name}"
    path = shutil.which(program)
    if "/" in name or path is None:
        raise Unavailable(
            f"credential helper {program} is configured but not in PATH: install it or remove it"
        )
    with trio.move_on_after(HELPER_SECONDS) as scope:
        result = await trio.run_process(
            [path, "get"], stdin=server.encode(), capture_stdout=True, capture_stderr=True, check=False
        )
    if scope.cancelled_caught:
        raise Unavailable(f"credential helper {program} gave no answer for {server} in {HELPER_SECONDS:g} s")
    # A helper says "credentials not found" on stdout or stderr; its exit code alone does not tell.
    words = (result.stdout + result.stderr)[:MAX_HELPER_OUTPUT].decode(errors="replace")
    if result.returncode != 0:
        if "credentials not found" in words.lower():
            return None
        said = result.stderr.decode(errors="replace").strip()[:200] or f"exit code {result.returncode}"
        raise Unavailable(f"credential helper {program} failed for {server}: {said}")
    return parse_helper_answer(result.stdout[:MAX_HELPER_OUTPUT], program)


def parse_helper_answer(data: bytes, program: str) -> Credential | None:
    """Read a helper's `get` answer. Pure. Raises: Unavailable."""
    try:
        answer = json.loads(data)
        username, secret = answer["Username"], answer["Secret"]
        if not isinstance(username, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, RecursionError, KeyError, TypeError):
        raise Unavailable(f"credential helper {program} answered without Username and Secret") from None
    if username == _REFRESH_USER:
        return Credential(identity_token=secret)
    return Credential(username=username, password=secret) if username or secret else None


def _login(entry: Mapping[str, Any], where: str) -> Credential | None:
    fields = {
        name: entry.get(name) or ""
        for name in ("username", "password", "auth", "identitytoken", "registrytoken")
    }
    for name, value in fields.items():
        if not isinstance(value, str):
            raise InvalidArgument(f"{where}.{name} is not a string")
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            decoded = base64.b64decode(fields["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidArgument(f"{where}.auth is not base64 of USER:PASSWORD") from None
        username, colon, password = decoded.partition(":")
        if not colon:
            raise InvalidArgument(f"{where}.auth is not base64 of USER:PASSWORD")
        password = password.strip("\0")
    credential = Credential(username, password, fields["identitytoken"], fields["registrytoken"])
    # An empty entry is Docker's mark for "a helper has it".
    return credential if credential != Credential() else None


def _server(host: str) -> str:
    return "https://index.docker.io/v1/" if host in _HUB_KEYS else host  # Docker's own key for the Hub
