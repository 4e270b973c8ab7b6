"""What was found out when a container was made, as its bundle and its record still say it.

To explain a container its inputs are collected again. What cannot be asked twice without an effect, or
may have changed since, is taken from here: sources of mounts, the user, namespaces, profiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from noded.model.container import Mount
from noded.model.image import Image
from noded.model.pod import ProfileType
from noded.model.records import ContainerRecord
from noded.spec.inputs import ImageVolume, ResolvedMount, ResolvedUser
from noded.spec.mounts import destination
from noded.spec.selinux import Labels


class Past:
    """A made container.

    Args:
        spec: the config.json in its bundle.
        data: directory of what belongs to the container.
        profile: the seccomp profile of a file or registry that it got, None = none.
    """

    def __init__(
        self, spec: Mapping[str, Any], record: ContainerRecord, data: Path, profile: Mapping[str, Any] | None
    ) -> None:
        self._spec, self._record, self._data = spec, record, data
        self.profile = profile

    def mounts(self, mounts: Sequence[Mount]) -> tuple[ResolvedMount, ...]:
        """The client's mounts. Their propagation was checked when they were made."""
        sources = {mount["destination"]: mount.get("source", "") for mount in self._spec.get("mounts", ())}
        return tuple(
            ResolvedMount(
                mount,
                sources.get(destination(mount.container_path)) or mount.host_path,
                parent_shared=True,
                parent_slave=True,
            )
            for mount in mounts
        )

    @property
    def user(self) -> ResolvedUser:
        """The identity that the container's process got."""
        user = self._record.user
        if user is not None:
            return ResolvedUser(user.uid, user.gid, user.supplemental_groups)
        own = self._spec["process"]["user"]
        return ResolvedUser(own["uid"], own["gid"], tuple(own.get("additionalGids", ())))

    @property
    def pid_namespace(self) -> str | None:
        """Path of the PID namespace that it joined."""
        for entry in self._spec["linux"].get("namespaces", ()):
            if entry["type"] == "pid":
                path: str | None = entry.get("path")
                return path
        return None

    @property
    def apparmor(self) -> str:
        """The AppArmor profile that it got without naming one."""
        asked = self._record.config.security.apparmor
        named = asked is not None and asked.type is ProfileType.LOCALHOST
        return "" if named else str(self._spec["process"].get("apparmorProfile", ""))

    @property
    def selinux(self) -> Labels:
        """The SELinux contexts that it got."""
        return Labels(
            self._spec["process"].get("selinuxLabel", ""), self._spec["linux"].get("mountLabel", "")
        )

    def volumes(self, image: Image) -> tuple[ImageVolume, ...]:
        """The image's VOLUMEs that got a directory."""
        found = []
        for path in image.config.volumes:
            source = volume_directory(self._data, path)
            if source.is_dir():
                found.append(ImageVolume(path, str(source)))
        return tuple(found)


def volume_directory(data: Path, path: str) -> Path:
    """Where a VOLUME of an image is kept that the image has no directory for.

    Args:
        data: directory of what belongs to the container.
    """
    return data / "volumes" / hashlib.sha256(path.encode()).hexdigest()[:16]
