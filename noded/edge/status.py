"""The one place where noded's errors become gRPC statuses."""

from __future__ import annotations

from dataclasses import dataclass

from grpclib.const import Status

from noded import errors

_STATUSES: dict[type[errors.NodedError], Status] = {
    errors.InvalidArgument: Status.INVALID_ARGUMENT,
    errors.NotFound: Status.NOT_FOUND,
    errors.AlreadyExists: Status.ALREADY_EXISTS,
    errors.FailedPrecondition: Status.FAILED_PRECONDITION,
    errors.PermissionDenied: Status.PERMISSION_DENIED,
    errors.ResourceExhausted: Status.RESOURCE_EXHAUSTED,
    errors.Unavailable: Status.UNAVAILABLE,
    errors.DeadlineExceeded: Status.DEADLINE_EXCEEDED,
    errors.Aborted: Status.ABORTED,
    errors.Unimplemented: Status.UNIMPLEMENTED,
    errors.DataLoss: Status.DATA_LOSS,
    errors.Internal: Status.INTERNAL,
    errors.Unknown: Status.UNKNOWN,
}

# A message travels percent-encoded in a trailer, at worst three bytes for one. gRPC's C core
# refuses more than 8 KiB of headers together; a refused trailer would hide the error itself.
_LONGEST_MESSAGE_BYTES = 2000

_NO_THREAD = "can't start new thread"  # of threading, in every version so far


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended. `defect` marks an error that noded did not raise on purpose."""

    status: Status
    message: str
    defect: bool = False


def outcome_of(error: BaseException) -> Outcome:
    """Map an error, with its notes as further lines, to what the client gets."""
    leaves = [_explained(leaf) for leaf in _leaves(error)]
    first = leaves[0]
    if not all(isinstance(leaf, errors.NodedError) for leaf in leaves):
        first = next(leaf for leaf in leaves if not isinstance(leaf, errors.NodedError))
        text = f"defect in noded: {type(first).__name__}: {first}"
        return Outcome(Status.INTERNAL, _cut(text), defect=True)
    lines = [line for leaf in leaves for line in (str(leaf), *_notes(leaf))]
    if error is not first:
        lines += _notes(error)
    return Outcome(_status(type(first)), _cut("\n".join(lines)))


def _status(kind: type[BaseException]) -> Status:
    for base in kind.__mro__:
        if base in _STATUSES:
            return _STATUSES[base]
    return Status.INTERNAL


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors of a group; a trio nursery wraps even a single one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _explained(error: BaseException) -> BaseException:
    """The error itself, unless it is what Python says when the kernel has no thread left."""
    if not isinstance(error, RuntimeError) or str(error) != _NO_THREAD:
        return error
    return errors.ResourceExhausted(
        "no thread can be started: raise TasksMax= of noded's unit, or end processes on this node"
    )


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= _LONGEST_MESSAGE_BYTES:
        return data.decode()
    return data[:_LONGEST_MESSAGE_BYTES].decode("utf-8", "ignore") + " [...]"
