"""Tunes the CPUs of a container for as long as it lives, where annotations of its pod ask for that."""

from __future__ import annotations

import posixpath
from pathlib import Path

import structlog
import trio

from noded.engine.container import Container
from noded.engine.handlers import Handlers
from noded.host.cgroups import Cgroups
from noded.host.cpu_tuning import CpuTuner
from noded.model.cpus import format_cpus
from noded.model.host import CgroupMode
from noded.spec.cpu_tuning import CpuTuning, cpu_tuning, tuning_plan, whole_cpus

log = structlog.get_logger(__name__)


class CpuTunings:
    """The rung between a container's task and its being ready.

    The journal is in the bundle, and goes with it after the CPUs were given back.
    """

    def __init__(self, handlers: Handlers, cgroups: Cgroups, tuner: CpuTuner) -> None:
        self._handlers = handlers
        self._cgroups = cgroups
        self._tuner = tuner

    def wish(self, container: Container) -> CpuTuning:
        """What the annotations ask for this container. Raises: InvalidArgument naming the annotation."""
        sandbox = container.sandbox.record
        allowed = self._handlers.allowed_annotations(sandbox.handler, sandbox.config.annotations)
        return cpu_tuning(sandbox.config.annotations, container.record.config.name, allowed)

    async def up(self, container: Container) -> None:
        """Tune. Raises: InvalidArgument, FailedPrecondition naming the annotation."""
        wish = self.wish(container)
        for warning in wish.warnings:
            log.warning("annotation without effect", id=container.id, detail=warning)
        if not wish.wanted:
            return
        cpus = whole_cpus(container.record.resources)
        if not cpus:
            log.info("CPUs not tuned, the container has no whole ones of its own", id=container.id)
            return
        place = self._cgroups.place(container.record.cgroup)
        in_pod = bool(container.sandbox.record.config.cgroup_parent)  # else above it are all pods
        container.cpus_tuned = True
        plan = tuning_plan(
            wish,
            cpus,
            unified=self._cgroups.mode is CgroupMode.V2,
            cpuset_cgroup=self._directory(place, "cpuset"),
            pod_cpu_cgroup=self._directory(posixpath.dirname(place), "cpu") if in_pod else "",
        )
        await trio.to_thread.run_sync(self._tuner.apply, plan, journal(container))
        log.info("CPUs tuned", id=container.id, cpus=format_cpus(cpus))

    async def down(self, container: Container) -> None:
        """Give the CPUs back. Idempotent, and nothing for containers that had nothing tuned."""
        if container.cpus_tuned:
            await trio.to_thread.run_sync(self._tuner.undo, journal(container))
            container.cpus_tuned = False

    def _directory(self, place: str, controller: str) -> str:
        directory = self._cgroups.directory(place, controller)
        return str(directory).lstrip("/") if directory is not None and directory.is_dir() else ""


def journal(container: Container) -> Path:
    """Where it says what is to be undone."""
    return container.ref.bundle / "cpu-tuning.json"
