"""`WWW-Authenticate` headers: the challenge grammar of RFC 9110 §11.6.1 (was RFC 7235). Pure.

One header may carry several challenges, separated by the same commas that separate parameters:

    Bearer realm="https://auth/token",service="r", Basic realm="r"

A word followed by a space and no `=` begins a new challenge. Real registries send unquoted values
with `:` and `/` in them, so an unquoted value extends to the next comma or space.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from noded.errors import InvalidArgument

MAX_HEADER: Final = 16 * 1024  # characters; urllib3 caps header lines at 64 KiB, tokens need far less

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_GAP: Final = re.compile(r"[\s,]*")
_SCHEME: Final = re.compile(_TOKEN)
_TOKEN68: Final = re.compile(r"[ \t]+([A-Za-z0-9._~+/-]+=*)[ \t]*(?=,|\Z)")
_PARAMETER: Final = re.compile(rf'[\s,]*({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication challenge. `scheme` and the keys of `parameters` are lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    token68: str = ""


def parse(headers: Iterable[str]) -> tuple[Challenge, ...]:
    """Parse all `WWW-Authenticate` headers of a response, in order.

    Raises: InvalidArgument with the piece that is no challenge.
    """
    return tuple(challenge for header in headers for challenge in _parse_one(header))


def _parse_one(header: str) -> list[Challenge]:
    if len(header) > MAX_HEADER:
        raise InvalidArgument(f"WWW-Authenticate header has {len(header)} characters, more than {MAX_HEADER}")
    challenges: list[Challenge] = []
    position = _skip(header, 0)
    while position < len(header):
        scheme = _SCHEME.match(header, position)
        if scheme is None:
            raise InvalidArgument(
                f"WWW-Authenticate header has no scheme at {header[position : position + 40]!r}"
            )
        position = scheme.end()
        if position < len(header) and header[position] not in " \t,":
            raise InvalidArgument(
                f"WWW-Authenticate header has no scheme before {header[scheme.start() :][:40]!r}"
            )
        token68 = ""
        parameters: dict[str, str] = {}
        found = _TOKEN68.match(header, position)
        # `Scheme word` at the end of a challenge is a token68; `Scheme key=` is not, because
        # a key with an empty value is read as a parameter by every client.
        if found is not None and not _is_empty_parameter(found[1]):
            token68, position = found[1], found.end()
        if not token68:
            parameters, position = _parameters(header, position)
        challenges.append(Challenge(scheme[0].lower(), parameters, token68))
        position = _skip(header, position)
    return challenges


def _is_empty_parameter(word: str) -> bool:
    return word.endswith("=") and not word.endswith("==") and len(word) % 4 != 0


def _parameters(header: str, position: int) -> tuple[dict[str, str], int]:
    parameters: dict[str, str] = {}
    while parameter := _PARAMETER.match(header, position):
        name, quoted, plain = parameter.groups()
        value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else plain
        parameters.setdefault(name.lower(), value)
        position = parameter.end()
        if position < len(header) and header[position] not in " \t,":
            raise InvalidArgument(
                f"WWW-Authenticate header has rubbish after {name}: {header[position:][:40]!r}"
            )
    return parameters, position


def _skip(header: str, position: int) -> int:
    gap = _GAP.match(header, position)
    return gap.end() if gap else position
