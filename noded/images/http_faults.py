"""What goes wrong below HTTP, told apart from what urllib3 and the system raise."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Final

import trio

from noded.images.leash import Leash

OVERDUE: Final = "did not begin its answer in time"


class Trouble(StrEnum):
    """What kind of failure an exchange met."""

    UNREACHABLE = "unreachable"  # no connection: name, route, refused, timeout
    STALLED = "stalled"  # no byte within the stall timeout
    DROPPED = "dropped"  # the connection ended before the answer did
    CERTIFICATE = "certificate"  # TLS says the peer is not who it should be
    PROTOCOL = "protocol"  # the peer does not speak TLS or HTTP


class Fault(Exception):
    """An exchange failed below HTTP. Never leaves `noded.images`: the client turns it into an error."""

    def __init__(self, trouble: Trouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble = trouble


@contextmanager
def told_faults(leash: Leash | None = None) -> Iterator[None]:
    """Turns what urllib3 raises into a Fault, or into the cancellation that caused it."""
    import urllib3

    try:
        yield
    except (urllib3.exceptions.HTTPError, OSError, trio.TooSlowError, UnicodeError) as error:
        trio.from_thread.check_cancelled()  # a connection that we cut is no fault of the peer
        if leash is not None and leash.overdue:
            raise Fault(Trouble.STALLED, OVERDUE) from error
        raise _fault(error) from error


def _fault(error: Exception) -> Fault:
    import http.client

    import urllib3

    cause = _root(error)
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return Fault(Trouble.CERTIFICATE, cause.verify_message)
    if isinstance(cause, ssl.SSLError):
        return Fault(Trouble.PROTOCOL, f"TLS failed: {cause.reason or text}")
    if isinstance(cause, trio.TooSlowError):
        return Fault(Trouble.UNREACHABLE, "no connection in time")
    if isinstance(cause, socket.gaierror):
        return Fault(Trouble.UNREACHABLE, f"its name cannot be resolved: {text}")
    if isinstance(cause, TimeoutError) and cause.errno == errno.ETIMEDOUT:
        return Fault(Trouble.UNREACHABLE, text)
    if isinstance(cause, TimeoutError) and "handshake" in text:
        return Fault(Trouble.UNREACHABLE, "no TLS handshake in time")
    if isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError):
        return Fault(Trouble.STALLED, "sent nothing for too long")
    if isinstance(cause, urllib3.exceptions.IncompleteRead | ConnectionResetError | BrokenPipeError):
        return Fault(Trouble.DROPPED, "the connection broke")
    if isinstance(cause, OSError):
        return Fault(Trouble.UNREACHABLE, text)
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, http.client.IncompleteRead):
        return Fault(Trouble.PROTOCOL, f"not HTTP as it should be: {text[:200]!r}")
    return Fault(
        Trouble.DROPPED if isinstance(error, urllib3.exceptions.ProtocolError) else Trouble.PROTOCOL, text
    )


def _root(error: BaseException) -> BaseException:
    """The innermost cause: urllib3 wraps, trio groups one failure per address."""
    while True:
        inner = error.__cause__
        if isinstance(error, BaseExceptionGroup):
            inner = error.exceptions[0]
        elif error.args and isinstance(error.args[-1], Exception):
            inner = error.args[-1]
        if inner is None or inner is error:
            return error
        error = inner
