"""Makes sure that the AppArmor profile a container is to run under is in the kernel."""

from __future__ import annotations

import structlog
import trio

from noded.errors import FailedPrecondition, NodedError
from noded.host import apparmor
from noded.model.container import ContainerSecurity
from noded.model.host import HostFacts
from noded.model.pod import ProfileType
from noded.spec.apparmor import NAME, default_profile

log = structlog.get_logger(__name__)

_FIELD = "linux.security_context.apparmor"


class AppArmor:
    """Profiles of this node. Without AppArmor in the kernel every answer is "none needed".

    The built-in profile is loaded when the first container needs it, once in a daemon's life, so
    that an upgrade brings its changes; and again when somebody has removed it meanwhile.

    Args:
        profile: `apparmor_profile` of the configuration: the built-in one's name, one that the
            administrator loads, or "" for none.
    """

    def __init__(self, facts: HostFacts, profile: str) -> None:
        self._enabled = facts.apparmor
        self._profile = profile
        self._loading = trio.Lock()
        self._loaded = False
        self._warned = False

    async def default_for(self, security: ContainerSecurity, of_handler: str = "") -> str:
        """Return the profile for a container that names none of its own, "" = none; it is loaded then.

        `of_handler` is the handler's own `apparmor_profile`, "" = the node's counts.

        A node without apparmor_parser runs containers that do not ask for a profile without one, and
        says so; one that asks for RuntimeDefault is refused.

        Raises: FailedPrecondition, DeadlineExceeded.
        """
        asked = security.apparmor
        profile = of_handler or self._profile
        if not self._enabled or not profile or security.privileged:
            return ""
        if asked is not None and asked.type is not ProfileType.RUNTIME_DEFAULT:
            return ""
        if profile != NAME:
            if profile not in await trio.to_thread.run_sync(apparmor.apparmor_profiles):
                raise FailedPrecondition(
                    f"apparmor_profile: the profile {profile!r} is not loaded on this node: "
                    "load it with apparmor_parser --replace FILE"
                )
            return profile
        try:
            await self._ensure_default()
        except NodedError as error:
            if asked is not None:
                raise FailedPrecondition(
                    f"{_FIELD}: RuntimeDefault needs the profile {NAME}, which cannot be loaded: {error}"
                ) from error
            if not self._warned:
                self._warned = True
                log.warning("containers run without AppArmor", profile=NAME, reason=str(error))
            return ""
        return NAME

    async def check_named(self, security: ContainerSecurity) -> None:
        """Refuse a profile of the client's that the kernel does not have.

        Raises: FailedPrecondition.
        """
        asked = security.apparmor
        if not self._enabled or asked is None or asked.type is not ProfileType.LOCALHOST:
            return
        name = asked.localhost_ref.removeprefix("localhost/")
        if name not in await trio.to_thread.run_sync(apparmor.apparmor_profiles):
            raise FailedPrecondition(
                f"{_FIELD}.localhost_ref: the profile {name!r} is not loaded on this node: "
                "load it with apparmor_parser --replace FILE"
            )

    async def _ensure_default(self) -> None:
        async with self._loading:
            present = NAME in await trio.to_thread.run_sync(apparmor.apparmor_profiles)
            if present and self._loaded:
                return
            source = default_profile(managers=(apparmor.own_label(),))
            await trio.to_thread.run_sync(apparmor.load, source)
            self._loaded = True
            log.info("AppArmor profile loaded", profile=NAME)
