"""Explains the spec of a container that was made: what is in its bundle, and where each field comes from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from noded.config import Config
from noded.engine.bundle import BundleSpec, read_databases
from noded.engine.container import Container
from noded.engine.nri import Nri
from noded.engine.past import Past
from noded.engine.registry import Registry
from noded.engine.seccomp_profiles import SeccompProfiles
from noded.errors import FailedPrecondition, NodedError
from noded.images.library import Library
from noded.model.extension import Edit
from noded.model.image import Image
from noded.model.paths import Layout
from noded.spec.container import container_spec
from noded.spec.user import resolve_user

if TYPE_CHECKING:  # nothing of it is imported before somebody asks
    from noded.spec.explain.case import Case
    from noded.spec.explain.sources import Source


class Explain:
    """Explanations for people. Nothing of the node is changed, and nothing is kept."""

    def __init__(
        self,
        *,
        config: Config,
        layout: Layout,
        registry: Registry,
        images: Library,
        spec: BundleSpec,
        profiles: SeccompProfiles,
        nri: Nri,
    ) -> None:
        self._config = config
        self._layout = layout
        self._registry = registry
        self._images = images
        self._spec = spec
        self._profiles = profiles
        self._nri = nri

    async def of(self, name: str) -> dict[str, Any]:
        """Explain a container.

        Args:
            name: its id or a unique start of it.

        Raises: NotFound; FailedPrecondition when its bundle or its image is gone.
        Cancellation: safe.
        """
        from noded.spec.explain.case import build
        from noded.spec.explain.document import document
        from noded.spec.explain.explain import explained
        from noded.spec.explain.stages import after_stages, as_found

        container = self._registry.container(name)
        image = self._images.get(container.record.image_id)
        if image is None:
            raise FailedPrecondition(
                f"image {container.record.image_id} is gone: pull it again to have the container explained"
            )
        actual = await _bundle(container)
        notes: list[str] = []
        case, not_granted = await self._case(container, image, actual, notes)
        spec = build(case)
        own = await trio.to_thread.run_sync(explained, case)
        stages = await self._stages(container, image, spec, notes)
        found, absent = as_found(after_stages(own, stages), actual)
        subject = {
            "container": container.id,
            "name": container.record.config.name,
            "pod": container.sandbox.id,
            "handler": container.sandbox.record.handler,
            "image": container.record.image_id,
        }
        return document(
            subject,
            found,
            absent=absent,
            notes=[*not_granted, *notes],
            pod_sysctls=self._spec.pod_sysctls(container.sandbox.record),
        )

    async def _case(
        self, container: Container, image: Image, actual: Mapping[str, Any], notes: list[str]
    ) -> tuple[Case, tuple[str, ...]]:
        from noded.spec.explain.case import Case

        profile = None
        try:
            profile = await self._profiles.past(container)
        except NodedError as error:
            notes.append(f"its seccomp profile cannot be read any more: {error}")
        past = Past(actual, container.record, self._layout.container_data(container.id), profile)
        inputs, not_granted = await self._spec.inputs(container, image, past)
        warnings = (*not_granted, *container_spec(inputs).warnings)
        passwd, group = await trio.to_thread.run_sync(_databases, self._layout.rootfs(container.id))
        config = container.record.config
        same = replace(inputs.user, username="") == _user(passwd, group, image, container)
        if not same:
            notes.append("the users and groups in the container's files are not those it was made with")
        case = Case(
            replace(inputs, container=config),
            passwd=passwd if same else None,
            group=group if same else None,
            allowed_devices=self._config.allowed_devices,
            handler=container.sandbox.record.handler,
            workloads=self._config.workloads,
            shared_cpuset=self._config.shared_cpuset,
        )
        return case, warnings

    async def _stages(
        self, container: Container, image: Image, spec: dict[str, Any], notes: list[str]
    ) -> list[tuple[Source, Mapping[str, Any]]]:
        """Who changed the spec after it was built, in order. What cannot be repeated today is noted."""
        from noded.engine.spec_stages import Changers, stages
        from noded.spec.explain.sources import Kind, Source

        pod, config = container.sandbox.record.config, container.record.config
        inject = partial(self._spec.inject, container)

        async def wanted_edits(before: Mapping[str, Any]) -> list[tuple[str, Edit]]:
            return await self._spec.wanted_edits(before, container, image)

        changers = Changers(inject, self._spec.cdi.file_of, self._spec.hook_directories, wanted_edits)
        found = await stages(spec, pod, config, changers, notes)
        try:
            for plugin, after in await self._nri.replayed(
                container, dict(found[-1][1]) if found else spec, inject
            ):
                found.append((Source(Kind.NRI, plugin), after))
        except NodedError as error:
            notes.append(f"what NRI plugins change cannot be shown: {error}")
        return found


async def _bundle(container: Container) -> dict[str, Any]:
    path = container.ref.bundle / "config.json"
    try:
        data = await trio.Path(path).read_bytes()
    except FileNotFoundError:
        raise FailedPrecondition(
            f"container {container.id[:12]} has no bundle any more ({path} is missing, as after a reboot): "
            "explain its saved request with --request"
        ) from None
    spec: dict[str, Any] = json.loads(data)
    return spec


def _databases(rootfs: Path) -> tuple[str, str]:
    try:
        return read_databases(rootfs)
    except (OSError, NodedError):
        return "", ""


def _user(passwd: str, group: str, image: Image, container: Container) -> object:
    try:
        found = resolve_user(passwd, group, image.config.user, container.record.config.security)
    except NodedError:
        return None
    return replace(found, username="")
