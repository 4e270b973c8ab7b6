"""Checks of seccomp and AppArmor choices."""

from __future__ import annotations

from noded.errors import InvalidArgument
from noded.model.host import HostFacts
from noded.model.pod import ProfileType, SecurityProfile


def check_seccomp(profile: SecurityProfile | None, field: str) -> None:
    """Raises: InvalidArgument."""
    if profile is None or profile.type is not ProfileType.LOCALHOST:
        return
    reference = profile.localhost_ref
    if not reference:
        raise InvalidArgument(f"{field}.localhost_ref: must name a file when profile_type is Localhost")
    # The kubelet joins its own root directory and the pod's localhostProfile.
    if not reference.removeprefix("localhost/").startswith("/"):
        raise InvalidArgument(f"{field}.localhost_ref: {reference!r} must be an absolute path")


def check_apparmor(profile: SecurityProfile | None, host: HostFacts, field: str) -> None:
    """Raises: InvalidArgument. Without AppArmor on the node, only a named profile is refused."""
    if profile is None or profile.type is not ProfileType.LOCALHOST:
        return
    name = profile.localhost_ref.removeprefix("localhost/")
    if not name:
        raise InvalidArgument(f"{field}.localhost_ref: must name a profile when profile_type is Localhost")
    if not host.apparmor:
        raise InvalidArgument(
            f"{field}.localhost_ref: AppArmor is not enabled on this node, so nothing can enforce {name!r}"
        )
