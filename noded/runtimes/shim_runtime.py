"""`ShimRuntime`: the driver for containerd's runtime v2 shims, which run tasks behind a ttrpc API.

One shim serves a pod: it is started with the sandbox, and all containers of the pod are created in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, InvalidArgument, NodedError, Unavailable
from noded.host.cgroups import Cgroups
from noded.host.processes import become_subreaper
from noded.model.extension import Finding
from noded.model.host import CgroupDriver
from noded.model.runtime import (
    RuntimeFeatures,
    RuntimeHost,
    Sandbox,
    SandboxRef,
    SandboxStart,
    TaskCreate,
)
from noded.runtimes.command import find_program, run
from noded.runtimes.features import features_from_json, limited_by_kernel, parse_version
from noded.runtimes.monitor import Exits
from noded.runtimes.quirks import OciQuirks
from noded.runtimes.shim_bootstrap import Bootstrap
from noded.runtimes.shim_parts import ShimParts
from noded.runtimes.shim_pumps import Pumps
from noded.runtimes.shim_quirks import ShimOptions, ShimQuirks, sizing_annotations
from noded.runtimes.shim_sandbox import ShimSandbox
from noded.runtimes.shim_start import ShimStart
from noded.runtimes.shim_teardown import ShimTeardown
from noded.wire import ttrpc_task
from noded.wire.ttrpc_task import RuncOptions, RuntimeOptions

_log = structlog.get_logger(__name__)

_PROBE_SECONDS = 10.0


class ShimRuntime:
    """Implements `noded.model.runtime.Runtime`; contracts are documented there.

    Opening it touches nothing; the shim is looked up when it is needed.

    Args:
        handler: name of the handler, a path component.
        quirks: which shim, and how it differs from others.
        check: what the shim needs besides its program; what is not ok makes the handler unavailable.
            It may block, and is asked again each time features are.
    """

    def __init__(
        self,
        handler: str,
        quirks: ShimQuirks,
        options: ShimOptions,
        host: RuntimeHost,
        check: Callable[[], Iterable[Finding]] | None = None,
    ) -> None:
        self._handler = handler
        self._check = check
        self._quirks = quirks
        self._options = options
        self._host = host
        self._pumps = Pumps(host.log_max_bytes)
        self._shared: ShimParts | None = None
        self._features: tuple[tuple[int, int, int], RuntimeFeatures] | None = None
        self._root = Path(options.root) if options.root else host.layout.state / "runtimes" / handler
        if not self._root.is_absolute():
            raise InvalidArgument(f"runtimes.{handler}.root: {options.root!r} is not an absolute path")
        if options.config_path and quirks.options != "generic":
            raise InvalidArgument(
                f"runtimes.{handler}.config_path: {quirks.program} takes no configuration file"
            )
        if options.config_path and not os.path.isabs(options.config_path):
            raise InvalidArgument(
                f"runtimes.{handler}.config_path: {options.config_path!r} is not an absolute path"
            )

    async def features(self) -> RuntimeFeatures:
        program = await trio.to_thread.run_sync(self._program, True)
        if self._check is not None:
            findings = await trio.to_thread.run_sync(_complete, self._check)
            if missing := [f"{each.subject}: {each.detail}" for each in findings if not each.ok]:
                raise Unavailable(f"{self._quirks.program} cannot run pods here: {'; '.join(missing)}")
        status = os.stat(program)
        fingerprint = (status.st_mtime_ns, status.st_size, status.st_ino)
        # Asked again when the program was replaced, e.g. by a package upgrade.
        if self._features is None or self._features[0] != fingerprint:
            self._features = fingerprint, await self._probe(program)
        return self._features[1]

    async def _probe(self, program: str) -> RuntimeFeatures:
        done = await run(
            [program, *self._quirks.version_args], timeout_seconds=_PROBE_SECONDS, environment={}
        )
        text = (done.stdout or done.stderr).decode(errors="replace").lower()
        features = RuntimeFeatures(
            version=parse_version(text)[0].strip(",;"),
            update=self._quirks.update,
            needs_infra=self._quirks.sandbox_container,
            usage_in_cgroup=self._quirks.host_processes,
            virtual_machine=not self._quirks.host_processes,
        )
        if not self._quirks.oci_runtime:
            return features
        binary = await trio.to_thread.run_sync(
            find_program, self._options.binary or self._quirks.oci_runtime, self._quirks.oci_runtime
        )
        try:
            done = await run([binary, "features"], timeout_seconds=_PROBE_SECONDS, environment={})
            quirks = OciQuirks(self._quirks.oci_runtime, self._quirks.package)
            inner = features_from_json(features.version, done.stdout, quirks)
        except (ValueError, NodedError) as error:
            _log.debug("runtime_features_unknown", runtime=binary, reason=str(error))
            return features
        # User namespaces would need fifos that the pod's root may open.
        merged = replace(
            features,
            recursive_read_only_mounts=inner.recursive_read_only_mounts,
            highest_oci_version=inner.highest_oci_version,
        )
        return limited_by_kernel(merged, self._host.facts.kernel, user_namespaces=False)

    async def start_sandbox(self, start: SandboxStart) -> Sandbox:
        parts = await self._parts(strict=True)
        seconds = start.deadline_seconds
        with trio.move_on_after(seconds):
            return await self._start(parts, start)
        raise DeadlineExceeded(
            f"starting pod sandbox {start.ref.id} with {self._quirks.program} took longer than {seconds:g} s"
        )

    async def _start(self, parts: ShimParts, start: SandboxStart) -> Sandbox:
        ref = start.ref
        # A former attempt may have got anywhere.
        await ShimTeardown(parts, ref).destroy()
        spec = self._sandbox_spec(start)
        await ShimStart(parts, ref).start(spec, start.monitor_cgroup)
        sandbox = ShimSandbox(parts, ref)
        if start.infra_spec is not None:
            task = parts.sandbox_task(ref)
            await sandbox.create(TaskCreate(ref=task, deadline_seconds=start.deadline_seconds))
            await sandbox.start(task)
        return sandbox

    def _sandbox_spec(self, start: SandboxStart) -> Mapping[str, Any]:
        """The sandbox container's spec with all annotations; without one the annotations alone."""
        spec: Mapping[str, Any] = start.infra_spec or {"ociVersion": "1.0.2"}
        annotations = {
            **self._options.annotations,
            **spec.get("annotations", {}),
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": start.ref.id,
            **sizing_annotations(start.ref.config, with_overhead=self._options.size_with_overhead),
        }
        return {**spec, "annotations": annotations}

    async def attach_sandbox(self, ref: SandboxRef) -> Sandbox:
        sandbox = ShimSandbox(await self._parts(strict=False), ref)
        sandbox.resume_watch()
        return sandbox

    async def destroy_sandbox(self, ref: SandboxRef) -> None:
        await ShimTeardown(await self._parts(strict=False), ref).destroy()

    def _program(self, strict: bool) -> str:
        name = self._options.path or self._quirks.program
        try:
            return find_program(name, self._quirks.package)
        except Unavailable:
            if strict:
                raise
            return name

    def _task_options(self) -> ttrpc_task.Any | None:
        options = self._options
        if self._quirks.options == "runc":
            return ttrpc_task.packed(
                RuncOptions(
                    no_pivot_root=options.no_pivot,
                    binary_name=options.binary or self._quirks.oci_runtime,
                    root=str(self._root),
                    systemd_cgroup=self._host.facts.cgroup_driver is CgroupDriver.SYSTEMD,
                )
            )
        if self._quirks.options == "generic" and options.config_path:
            return ttrpc_task.packed(RuntimeOptions(options.type_url, options.config_path))
        return None

    async def _parts(self, *, strict: bool) -> ShimParts:
        """Put the parts together. Not `strict`: also without the program, so that pods can be removed."""
        program = await trio.to_thread.run_sync(self._program, strict)
        if self._shared is None or self._shared.bootstrap.program != program:
            # The shim leaves itself to us, and when it dies its tasks: we must be who inherits them.
            become_subreaper()
            facts, options = self._host.facts, self._task_options()
            cgroups = await trio.to_thread.run_sync(Cgroups, facts.cgroup_mode, facts.cgroup_driver)
            self._shared = ShimParts(
                quirks=self._quirks,
                layout=self._host.layout,
                cgroups=cgroups,
                exits=Exits(self._host.layout.exits, cgroups, stalled_seconds=self._host.stalled_seconds),
                bootstrap=Bootstrap(program, self._quirks.program, options, self._options.environment),
                pumps=self._pumps,
                task_options=options,
            )
        return self._shared


def _complete(check: Callable[[], Iterable[Finding]]) -> list[Finding]:
    return list(check())
