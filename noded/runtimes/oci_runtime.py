"""`OciRuntime`: the driver for programs with runc's command line, watched by conmon."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog
import trio

from noded.errors import DeadlineExceeded, InvalidArgument, NodedError, Unavailable
from noded.host.cgroups import Cgroups
from noded.host.files import publish
from noded.host.processes import become_subreaper
from noded.model.host import CgroupDriver, CgroupMode
from noded.model.runtime import (
    RuntimeFeatures,
    RuntimeHost,
    Sandbox,
    SandboxRef,
    SandboxStart,
    TaskCreate,
    TaskRef,
)
from noded.runtimes.command import CommandLine, find_program
from noded.runtimes.conmon import Conmon
from noded.runtimes.exec import Execs
from noded.runtimes.failures import ending, runtime_error
from noded.runtimes.features import (
    features_from_json,
    features_from_table,
    limited_by_kernel,
    parse_version,
)
from noded.runtimes.forward import Forwards, new_limiter
from noded.runtimes.monitor import Exits
from noded.runtimes.oci_sandbox import OciParts, OciSandbox, infra_task
from noded.runtimes.quirks import OciOptions, OciQuirks
from noded.runtimes.records import CONFIG_FILE, FORWARDS_FILE
from noded.runtimes.stand_in import ensure_stand_in
from noded.runtimes.teardown import Teardown
from noded.runtimes.wrapper import ensure_wrapper

_log = structlog.get_logger(__name__)

_PROBE_SECONDS = 10.0
# runc is a Go program that lives for some ms: threads for more processors cost it a tenth of its time.
# A runtime that goes on as the container's kernel needs them.
_SHORT_LIVED = {"GOMAXPROCS": "1"}
# Verbs that look at the host's cgroups, and so need the wrapper where the runtime refuses hybrids.
_CGROUP_VERBS = frozenset({"create", "exec", "update"})


class OciRuntime:
    """Implements `noded.model.runtime.Runtime`; contracts are documented there.

    Opening it touches nothing; programs are looked up when they are needed, so a runtime that is
    installed later works without a restart.

    Args:
        handler: name of the handler, a path component.
        quirks: which program, and how it differs from runc.
    """

    def __init__(self, handler: str, quirks: OciQuirks, options: OciOptions, host: RuntimeHost) -> None:
        self._handler = handler
        self._quirks = quirks
        self._options = options
        self._host = host
        self._cgroups: Cgroups | None = None
        self._known: CommandLine | None = None
        self._features: tuple[tuple[int, int, int], RuntimeFeatures] | None = None
        self._forwarding = new_limiter()
        directory = host.layout.state / "runtimes"
        self._root = Path(options.root) if options.root else directory / handler
        self._wrapper = directory / f"{handler}.sh"
        self._stand_in = directory / f"{handler}-stand-in.sh"
        if not self._root.is_absolute():
            raise InvalidArgument(f"runtimes.{handler}.root: {options.root!r} is not an absolute path")

    async def features(self) -> RuntimeFeatures:
        command = await self._command(strict=True)
        status = os.stat(command.program)
        fingerprint = (status.st_mtime_ns, status.st_size, status.st_ino)
        # Asked again when the program was replaced, e.g. by a package upgrade.
        if self._features is None or self._features[0] != fingerprint:
            self._features = fingerprint, await self._probe(command)
        return self._features[1]

    async def start_sandbox(self, start: SandboxStart) -> Sandbox:
        parts = await self._parts(strict=True)
        if start.infra_spec is not None:
            with trio.move_on_after(start.deadline_seconds) as scope:
                await self._start_infra(parts, start, start.infra_spec)
            if scope.cancelled_caught:
                raise DeadlineExceeded(
                    f"starting the sandbox container of {start.ref.id} took longer than "
                    f"{start.deadline_seconds:g} s"
                )
        return OciSandbox(parts, start.ref)

    async def _start_infra(self, parts: OciParts, start: SandboxStart, spec: Mapping[str, Any]) -> None:
        ref = start.ref
        # A former attempt may have got anywhere; its cgroup is in the spec that it wrote.
        await parts.teardown.delete(infra_task(ref))
        ref.bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
        spec = with_capabilities(spec, self._quirks.infra_capabilities)
        publish(ref.bundle / CONFIG_FILE, json.dumps(spec).encode(), 0o600, durable=False)
        features = await self.features()
        if features.forwards:
            # The program may be replaced while the sandbox lives: what it can do is what it was started with.
            publish(ref.bundle / FORWARDS_FILE, features.version.encode(), 0o600, durable=False)
        task = infra_task(ref)
        await parts.conmon.create(
            TaskCreate(ref=task, monitor_cgroup=start.monitor_cgroup, deadline_seconds=start.deadline_seconds)
        )
        await OciSandbox(parts, ref).start(task)

    async def attach_sandbox(self, ref: SandboxRef) -> Sandbox:
        return OciSandbox(await self._parts(strict=False), ref)

    async def destroy_sandbox(self, ref: SandboxRef) -> None:
        if not ref.bundle.exists():  # made before all else of an infra container: there was none
            await trio.lowlevel.checkpoint()
            return
        parts = await self._parts(strict=False)
        await parts.teardown.delete(infra_task(ref))
        # Last: it tells which cgroup to clean.
        (ref.bundle / CONFIG_FILE).unlink(missing_ok=True)

    async def _probe(self, command: CommandLine) -> RuntimeFeatures:
        done = await command.run("--version", timeout_seconds=_PROBE_SECONDS)
        if done.returncode != 0:
            raise runtime_error(f"{command.program} --version failed", done.stderr, ending(done.returncode))
        version, _ = parse_version((done.stdout or done.stderr).decode(errors="replace"))
        features = features_from_table(version, self._quirks.features, self._quirks)
        if self._quirks.features_verb:
            try:
                done = await command.run("features", timeout_seconds=_PROBE_SECONDS)
                features = features_from_json(version, done.stdout, self._quirks)
            except (ValueError, NodedError) as error:
                _log.debug("runtime_features_from_table", runtime=command.program, reason=str(error))
        return limited_by_kernel(
            features, self._host.facts.kernel, user_namespaces=await trio.to_thread.run_sync(_userns_allowed)
        )

    async def _command(self, *, strict: bool) -> CommandLine:
        """How to call the program. It is looked up again when it is not where it was found."""
        known = self._known
        if known is not None and (not strict or _is_there(known)):
            return known
        command = await trio.to_thread.run_sync(self._prepare, strict)
        self._known = command if _is_there(command) else None
        return command

    def _prepare(self, strict: bool) -> CommandLine:
        """Resolve the program and make what it needs to run. Blocks for a few file operations."""
        quirks = self._quirks
        program = _resolve(self._options.path or quirks.program, quirks.package, strict)
        monitored, wrapped = program, frozenset[str]()
        if quirks.refuses_hybrid_cgroups and self._host.facts.cgroup_mode is CgroupMode.HYBRID:
            ensure_wrapper(self._wrapper, program)
            monitored, wrapped = str(self._wrapper), _CGROUP_VERBS
        # Parents one by one: those that mkdir makes on the way have the umask's mode.
        for directory in (self._wrapper.parent, self._root, self._host.layout.exits):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = CommandLine(
            program=program,
            monitored=monitored,
            wrapped=wrapped,
            global_args=(f"--root={self._root}", *quirks.global_args, *self._options.global_args),
            direct_args=("--systemd-cgroup",) if self._systemd else (),
            environment={**(_SHORT_LIVED if quirks.host_processes else {}), **self._options.environment},
        )
        if quirks.stand_in:
            ensure_stand_in(self._stand_in, (program, *command.direct_args, *command.global_args))
        return command

    @property
    def _systemd(self) -> bool:
        return self._host.facts.cgroup_driver is CgroupDriver.SYSTEMD

    async def _parts(self, *, strict: bool) -> OciParts:
        """Put the parts together. Not `strict`: also when programs are gone, so that pods can be removed."""
        command = await self._command(strict=strict)
        if self._cgroups is None:
            # A command's exec leaves its process to us: we must be the one who inherits it.
            become_subreaper()
            facts = self._host.facts
            self._cgroups = await trio.to_thread.run_sync(Cgroups, facts.cgroup_mode, facts.cgroup_driver)
        cgroups, name = self._cgroups, self._quirks.program
        exits = Exits(
            self._host.layout.exits,
            cgroups,
            shared=self._quirks.stand_in,
            stalled_seconds=self._host.stalled_seconds,
        )

        def members(task: TaskRef) -> set[int]:
            return cgroups.procs(cgroups.place(task.cgroup)) if task.cgroup else set()

        return OciParts(
            quirks=self._quirks,
            command=command,
            runtime_root=self._root,
            cgroups=cgroups,
            conmon=Conmon(
                program=_resolve(self._host.conmon_path or "conmon", "conmon", strict),
                command=command,
                exits=exits.directory,
                cgroups=cgroups,
                systemd=self._systemd,
                no_pivot=self._options.no_pivot,
                log_max_bytes=self._host.log_max_bytes,
                runtime_name=name,
                stand_in=str(self._stand_in) if self._quirks.stand_in else "",
            ),
            exits=exits,
            execs=Execs(
                command=command,
                runtime_name=name,
                members=members,
                internal_pid_file=self._quirks.internal_pid_file,
            ),
            forwards=Forwards(command, name, self._forwarding),
            teardown=Teardown(
                command=command,
                runtime_name=name,
                runtime_root=self._root,
                exits=exits,
                cgroups=cgroups,
                host_processes=self._quirks.host_processes,
            ),
        )


def with_capabilities(spec: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the spec with these capabilities in the process's bounding, effective and permitted sets."""
    if not names:
        return spec
    sets = spec["process"]["capabilities"]
    granted = {kind: [*sets.get(kind, ()), *names] for kind in ("bounding", "effective", "permitted")}
    return {**spec, "process": {**spec["process"], "capabilities": {**sets, **granted}}}


def _is_there(command: CommandLine) -> bool:
    return os.path.exists(command.program)


def _resolve(name: str, package: str, strict: bool) -> str:
    try:
        return find_program(name, package)
    except Unavailable:
        if strict:
            raise
        return name


def _userns_allowed() -> bool:
    """Tell whether this kernel may make user namespaces at all (user_namespaces(7))."""
    try:
        return int(Path("/proc/sys/user/max_user_namespaces").read_text()) > 0
    except (OSError, ValueError):
        return False
