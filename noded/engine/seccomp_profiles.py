"""Fetches the profile that a container's seccomp choice or annotations name; each is checked once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from noded.engine.container import Container
from noded.errors import InvalidArgument
from noded.images.seccomp_artifacts import SeccompArtifacts
from noded.model.image import Image
from noded.model.pod import ProfileType
from noded.spec.seccomp.annotations import profile_reference
from noded.spec.seccomp.profile import MAX_PROFILE_BYTES, parse_artifact_profile, parse_profile
from noded.wire import digest as digests

_MOST_KEPT = 64  # parsed profiles in memory
_LOCALHOST = "security_context.seccomp.localhost_ref"


class SeccompProfiles:
    """Profiles beside the built-in one."""

    def __init__(self, artifacts: SeccompArtifacts) -> None:
        self._artifacts = artifacts
        self._parsed: OrderedDict[tuple[str, str], Mapping[str, Any]] = OrderedDict()

    async def of(
        self, container: Container, image: Image, allowed: tuple[str, ...]
    ) -> Mapping[str, Any] | None:
        """The checked profile of a Localhost choice, or of an annotation; None when there is neither.

        Args:
            allowed: the handler's `allowed_annotations`.

        Raises: InvalidArgument naming the field or annotation and the mistake; for one from a registry also
            what a pull raises. Cancellation: safe.
        """
        config, pod = container.record.config, container.sandbox.record
        choice = config.security.seccomp
        if choice is not None and choice.type is ProfileType.LOCALHOST:
            path = Path(choice.localhost_ref)
            if not path.is_absolute():
                raise InvalidArgument(f"{_LOCALHOST} {choice.localhost_ref!r} must be an absolute path")
            data = await trio.to_thread.run_sync(_read, path)
            return self._checked(data, digests.of(data), str(path), parse_profile)
        named = profile_reference(pod.config.annotations, image.config.annotations, config, allowed)
        if named is None:
            return None
        container.stage = f"pulling seccomp profile {named.reference}"
        try:
            found = await self._artifacts.profile(named.reference, pod.key.namespace)
        except Exception as error:
            error.add_note(f"the seccomp profile is named by {named.field}")
            raise
        container.stage = "spec"
        profile = self._checked(found.data, found.blob_digest, named.reference, parse_artifact_profile)
        await container.commit(seccomp_artifact=found.pin, seccomp_blob=found.blob_digest)
        return profile

    async def past(self, container: Container) -> Mapping[str, Any] | None:
        """The profile that a container which was made got from a file or a registry; nothing is pulled.

        Raises: InvalidArgument, NotFound, DataLoss when it cannot be read any more. Cancellation: safe.
        """
        choice, blob = container.record.config.security.seccomp, container.record.seccomp_blob
        if choice is not None and choice.type is ProfileType.LOCALHOST:
            path = Path(choice.localhost_ref)
            data = await trio.to_thread.run_sync(_read, path)
            return self._checked(data, digests.of(data), str(path), parse_profile)
        if not blob:
            return None
        data = await trio.to_thread.run_sync(self._artifacts.read, blob)
        return self._checked(data, blob, container.record.seccomp_artifact, parse_artifact_profile)

    def _checked(
        self, data: bytes, digest: str, source: str, parse: Callable[[bytes, str], Mapping[str, Any]]
    ) -> Mapping[str, Any]:
        key = (parse.__name__, digest)
        if key in self._parsed:
            self._parsed.move_to_end(key)
            return self._parsed[key]
        profile = self._parsed[key] = parse(data, source)
        if len(self._parsed) > _MOST_KEPT:
            self._parsed.popitem(last=False)
        return profile


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise InvalidArgument(f"{_LOCALHOST}: cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_PROFILE_BYTES:
        raise InvalidArgument(f"{_LOCALHOST}: {path} is larger than {MAX_PROFILE_BYTES} bytes")
    return data
