"""What a failed exchange with a registry means to the person who reads the pod's events.

Each message names the image, the endpoint asked, what it said, and what to do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from noded.errors import (
    DataLoss,
    FailedPrecondition,
    NodedError,
    NotFound,
    PermissionDenied,
    RegistryUnavailable,
)
from noded.images.endpoints import Endpoint
from noded.images.http_faults import Fault, Trouble
from noded.images.transport import MAX_ERROR_BODY, Reply
from noded.model.image import Credential

MAX_SAID: Final = 300  # characters of a registry's own words in a message


@dataclass(frozen=True, slots=True)
class Source:
    """Where to get one image from, and as whom. `image` names it in messages."""

    endpoint: Endpoint
    credential: Credential | None
    image: str

    @property
    def subject(self) -> str:
        """How messages begin."""
        return f"cannot pull {self.image}: {self.endpoint.name}"


def unreached(source: Source, fault: Fault, resource: str) -> NodedError:
    """The error for an endpoint that gave no whole answer."""
    subject = source.subject
    match fault.trouble:
        case Trouble.CERTIFICATE:
            host = source.endpoint.host
            return FailedPrecondition(
                f"{subject} has a certificate this node does not trust ({fault}): "
                f"put its CA into /etc/containers/certs.d/{host}/ca.crt"
            )
        case Trouble.PROTOCOL:
            return FailedPrecondition(
                f"{subject} cannot be talked to ({fault}): if it has no TLS, set insecure = true for it "
                "in registries.conf"
            )
        case Trouble.STALLED:
            return RegistryUnavailable(
                f"{subject} stalled ({fault}) at {resource}: try again or use a mirror"
            )
        case Trouble.DROPPED:
            return RegistryUnavailable(
                f"{subject} broke the connection at {resource}: try again or use a mirror"
            )
        case Trouble.UNREACHABLE:
            return RegistryUnavailable(
                f"{subject} cannot be reached ({fault}): check its name, the network and the proxy settings"
            )


def refused(source: Source, reply: Reply, resource: str, failures: int, status: int = 0) -> NodedError:
    """The error for an answer that is not success. Reads and closes it.

    Args:
        failures: how often it was asked.
        status: what the answer means, if not what its status line says.
    """
    subject, status = source.subject, status or reply.status
    where = urlsplit(reply.url).netloc
    if where != source.endpoint.api_host:
        subject += f" (at {where})"
    said = _error_text(reply)
    said = f" ({said})" if said else ""
    if status == 401 and source.credential is None:
        return PermissionDenied(
            f"{subject} wants a login or has no such image{said}: give an image pull secret"
        )
    if status == 401:
        return PermissionDenied(f"{subject} refused the login{said}: check the image pull secret")
    if status == 403:
        return PermissionDenied(f"{subject} forbids it{said}: check the rights of the login used")
    if status in (404, 410):
        missing = "has no such image" if resource.startswith("manifests/") else f"lacks {resource}"
        return NotFound(f"{subject} {missing}{said}: check the name and tag, or push it again")
    if status == 429:
        return RegistryUnavailable(f"{subject} limits requests{said}: wait, log in, or use a mirror")
    if status >= 500 or status == 408:
        return RegistryUnavailable(
            f"{subject} answered {status} {failures} times{said}: try again or use a mirror"
        )
    return FailedPrecondition(f"{subject} answered {status} for {resource}{said}")


def most_telling(errors: Sequence[NodedError]) -> NodedError:
    """The error to raise when several endpoints failed, the others attached as notes.

    The last endpoint is the registry itself, so its word counts most; but when it only could not be
    reached, a mirror's damage or refusal says more.
    """
    first = errors[-1]
    if isinstance(first, RegistryUnavailable):
        first = next((error for error in errors if isinstance(error, DataLoss | PermissionDenied)), first)
    for error in errors:
        if error is not first:
            first.add_note(f"before that: {error}")
    return first


def _error_text(reply: Reply) -> str:
    """What the registry says, in one printable line, "" when it says nothing a person could use."""
    with reply:
        try:
            answer = json.loads(reply.body(MAX_ERROR_BODY))
        except (Fault, ValueError, RecursionError):
            return ""
    if not isinstance(answer, dict):
        return ""
    texts: list[Any] = []
    errors = answer.get("errors")
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            texts.append(error.get("message") or error.get("code"))
    texts += [answer.get("details"), answer.get("error_description"), answer.get("message")]
    text = next((item for item in texts if isinstance(item, str) and item), "")
    return "".join(character if character.isprintable() else " " for character in text)[:MAX_SAID].strip()
