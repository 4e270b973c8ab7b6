"""What was found out when a container was made, as its bundle and its record still say it.

To explain a container its inputs are collected again. What cannot be asked twice without an effect, or
may have changed since, is taken from here: sources of mounts, the user, namespaces, profiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noded.engine.declared_volumes import volume_directory
from noded.model.container import Mount
from noded.model.image import Image
from noded.model.pod import ProfileType
from noded.model.records import ContainerRecord
from noded.spec.inputs import ImageVolume, ResolvedMount, ResolvedUser
from noded.spec.mounts import destination
from noded.spec.selinux import Labels


@dataclass(frozen=True, slots=True)
class Found:
    """What is found out for a container when it is made.

    Args:
        apparmor: profile for a container that names none.
        profile: seccomp profile of a file or registry, None = none.
        pid_namespace: path of the PID namespace to join, None = one of its own, or the node's.
    """

    labels: Labels
    mounts: tuple[ResolvedMount, ...]
    user: ResolvedUser
    apparmor: str
    profile: Mapping[str, Any] | None
    volumes: tuple[ImageVolume, ...]
    pid_namespace: str | None


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

    def found(self, mounts: Sequence[Mount], image: Image) -> Found:
        """All of it, for the mounts that its client asked for."""
        return Found(
            labels=self.selinux,
            mounts=self.mounts(mounts),
            user=self.user,
            apparmor=self.apparmor,
            profile=self.profile,
            volumes=self.volumes(image),
            pid_namespace=self.pid_namespace,
        )

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
