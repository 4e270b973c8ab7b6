"""The exception hierarchy: one class for each thing a caller can do about a failure.

This module imports nothing, so that every layer can raise from it. It knows nothing of gRPC:
`noded.edge.status` maps classes to status codes at one place.

The first line of a message says what to do or what is wrong in the caller's terms; it reaches
users in Kubernetes events verbatim. Secondary failures are attached with `add_note`, they never
replace the first one.
"""


class NodedError(Exception):
    """Root of all errors that noded raises on purpose."""


class InvalidArgument(NodedError):
    """The request is wrong and stays wrong: the caller must change it. Names the field."""


class NotFound(NodedError):
    """The named object does not exist (any more)."""


class AlreadyExists(NodedError):
    """An object with this identity exists and differs from the one asked for."""


class FailedPrecondition(NodedError):
    """The request is well formed, but the object or node is in a state that forbids it."""


class PermissionDenied(NodedError):
    """Credentials or policy forbid it: other credentials may help, a retry does not."""


class ResourceExhausted(NodedError):
    """Disk, inodes, processes or another quota is used up. Says what to free."""


class Unavailable(NodedError):
    """Cannot be done now; the same request may succeed later."""


class DeadlineExceeded(NodedError):
    """The time that the caller or a budget allowed has passed. Names the stage reached."""


class Aborted(NodedError):
    """Overtaken by another operation on the same object; read its state and decide anew."""


class Unimplemented(NodedError):
    """noded or this runtime handler has no such feature."""


class DataLoss(NodedError):
    """Bytes are not what their digest or length says."""


class Internal(NodedError):
    """A defect in noded or an effect that no other class describes."""


class Unknown(NodedError):
    """Sent with gRPC code Unknown, whose message kubelet shows without a code in front.

    kubelet recognises some pull failures by the *prefix* of such a message
    (k8s.io/cri-api/pkg/errors), so subclasses put theirs in front of the text.
    """

    prefix = ""

    def __init__(self, message: str) -> None:
        super().__init__(f"{self.prefix}: {message}" if self.prefix else message)


class RegistryUnavailable(Unknown):
    """The registry did not answer, answered 5xx/429 to the end, or stalled."""

    prefix = "RegistryUnavailable"


class SignatureValidationFailed(Unknown):
    """Image policy refused the image."""

    prefix = "SignatureValidationFailed"


class ImageVolumeMountFailed(Unknown):
    """An image volume could not be mounted."""

    prefix = "ImageVolumeMountFailed"


class RROUnsupported(Unknown):
    """The handler cannot make mounts recursively read-only."""

    prefix = "RROUnsupported"
