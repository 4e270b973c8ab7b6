"""The driver against a fake shim: one with a virtual machine, and ones that misbehave."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from noded.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NodedError,
    PermissionDenied,
    Unavailable,
)
from noded.host.processes import ProcessIdentity, children_of
from noded.model.extension import Finding
from noded.model.paths import Layout
from noded.model.pod import PodConfig, Resources, SandboxKey
from noded.model.runtime import (
    RuntimeHost,
    SandboxRef,
    SandboxStart,
    TaskCreate,
    TaskRef,
    TaskState,
    TaskUsage,
)
from noded.runtimes import shim_exits, shim_service, shim_start, shim_teardown
from noded.runtimes.killing import wait_dead
from noded.runtimes.shim_quirks import ShimOptions, ShimQuirks
from noded.runtimes.shim_record import read_shim
from noded.runtimes.shim_runtime import ShimRuntime
from tests.support.hosts import PLAIN_HOST
from tests.support.processes import kept_stopped

FAKE = Path(__file__).with_name("fake_shim.py")
REPOSITORY = Path(__file__).resolve().parents[3]
ENDING_SECONDS = 10.0

INFRA = {"ociVersion": "1.0.2", "process": {"args": ["pause"]}, "annotations": {"a": "b"}, "linux": {}}


@dataclass
class Fake:
    """A handler whose shim is the fake one, with one pod."""

    directory: Path
    sockets: Path
    virtual: bool = True
    stalled_seconds: float = 0.0
    behaviour: dict[str, Any] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: secrets.token_hex(8))
    check: Any = None
    tasks: list[TaskCreate] = field(default_factory=list)
    _runtime: ShimRuntime | None = None

    @property
    def ref(self) -> SandboxRef:
        config = PodConfig(
            SandboxKey("default", "web", "u1", 0), resources=Resources(memory_limit_bytes=1 << 30)
        )
        return SandboxRef(self.prefix, config, self.layout.infra_bundle(self.prefix), "")

    @property
    def layout(self) -> Layout:
        return Layout(self.directory / "root", self.directory / "state")

    @property
    def runtime(self) -> ShimRuntime:
        if self._runtime is None:
            program = self.directory / "containerd-shim-fake-v2"
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
            program.chmod(0o755)
            behaviour = {
                "directory": str(self.sockets),
                "calls": str(self.calls_file),
                "machine": self.virtual,
                **self.behaviour,
            }
            environment = {"FAKE_SHIM": json.dumps(behaviour), "PYTHONPATH": str(REPOSITORY)}
            quirks = ShimQuirks(
                "containerd-shim-fake-v2",
                "fake",
                host_processes=False,
                sandbox_container=self.virtual,
            )
            options = ShimOptions(
                path=str(program),
                config_path="/etc/fake.toml",
                annotations={"x": "y"},
                environment=environment,
            )
            host = RuntimeHost(PLAIN_HOST, self.layout, stalled_seconds=self.stalled_seconds)
            self._runtime = ShimRuntime("fake", quirks, options, host, self.check)
        return self._runtime

    @property
    def calls_file(self) -> Path:
        return self.directory / "calls"

    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def shim(self):
        return read_shim(self.ref.bundle)

    async def start(self, **options: Any):
        start = SandboxStart(self.ref, INFRA if self.virtual else None, **options)
        return await self.runtime.start_sandbox(start)

    def task(self, **options: Any) -> TaskCreate:
        identity = secrets.token_hex(8)
        bundle = self.layout.bundle(identity)
        bundle.mkdir(parents=True)
        (bundle / "config.json").write_text("{}")
        log = str(self.directory / f"{identity}.log")
        self.tasks.append(TaskCreate(TaskRef(identity, self.prefix, bundle, ""), log_path=log, **options))
        return self.tasks[-1]

    async def run(self, sandbox: Any) -> TaskCreate:
        task = self.task()
        await sandbox.create(task)
        await sandbox.start(task.ref)
        return task

    async def remove(self) -> None:
        sandbox = await self.runtime.attach_sandbox(self.ref)
        for task in self.tasks:
            await sandbox.delete(task.ref)
        await self.runtime.destroy_sandbox(self.ref)

    def traces(self) -> list[str]:
        left = [str(path) for path in self.sockets.iterdir()]
        left += [
            str(path)
            for path in self.layout.state.rglob("*")
            if path.name not in ("config.json", "infra", "pods", "containers", self.prefix)
            and path.name not in [task.ref.id for task in self.tasks]
        ]
        return left + [f"process {pid}" for pid in pids_mentioning(self.prefix)]


def pids_mentioning(text: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subreaper: None) -> Iterator[Fake]:
    """At the end no process, descriptor or file of the shim may be left."""
    monkeypatch.setattr(shim_service, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(shim_service, "CALL_SECONDS", 0.5)
    monkeypatch.setattr(shim_teardown, "_SHUTDOWN_SECONDS", 0.5)
    monkeypatch.setattr(shim_teardown, "_GUEST_SECONDS", 0.5)
    monkeypatch.setattr(shim_teardown, "_DELETE_SECONDS", 0.5)
    monkeypatch.setattr(shim_exits, "_TELL_SECONDS", 0.2)
    with tempfile.TemporaryDirectory(prefix="ndshim", dir="/tmp") as sockets:
        made = Fake(tmp_path, Path(sockets))
        fds, before = len(os.listdir("/proc/self/fd")), children_of(os.getpid())
        yield made
        assert made.traces() == []
        assert len(os.listdir("/proc/self/fd")) == fds
        reap_ending(children_of(os.getpid()) - before)
        assert children_of(os.getpid()) == before


def reap_ending(pids):
    """Collect orphans that came to us while they were on their way out, as noded's core does."""
    for pid in pids:
        process = os.pidfd_open(pid)
        try:
            assert select.select([process], [], [], ENDING_SECONDS)[0], f"process {pid} was left running"
        finally:
            os.close(process)
        os.waitpid(pid, 0)


def with_pod(fake, main):
    async def wrapped():
        try:
            with trio.fail_after(20):
                await main(await fake.start())
        finally:
            with trio.CancelScope(shield=True), trio.fail_after(20):
                await fake.remove()

    trio.run(wrapped)


def test_a_guest_s_tasks_live_and_die_by_their_shim(fake):
    async def main(sandbox):
        spec = json.loads((fake.ref.bundle / "config.json").read_text())
        assert spec["annotations"] == {
            "a": "b",
            "x": "y",
            "io.kubernetes.cri.container-type": "sandbox",
            "io.kubernetes.cri.sandbox-id": fake.prefix,
            "io.kubernetes.cri.sandbox-memory": str(1 << 30),
        }
        hypervisor = await sandbox.infra_pid()
        # What only this shim understands travels in the message that it understands.
        assert "options runtimeoptions.v1.Options /etc/fake.toml" in fake.calls()
        one, two = await fake.run(sandbox), await fake.run(sandbox)
        assert await sandbox.state(one.ref) is TaskState.RUNNING
        result = await sandbox.exec_sync(one.ref, {"args": ["x"]}, timeout_seconds=5, limit_bytes=99)
        assert (result.exit_code, result.stdout) == (0, b"hello\n")
        assert await sandbox.usage(one.ref) == TaskUsage(7_000_000, 5000, 4900, 3)
        await sandbox.kill(one.ref, signal.SIGTERM)
        ended = await sandbox.wait(one.ref)
        assert (ended.code, ended.finished_at_ns % 10**9) == (143, 5)
        log = await trio.Path(one.log_path).read_text()
        assert log.endswith("stdout F hello\n")
        await sandbox.kill(one.ref, signal.SIGTERM)
        await sandbox.delete(one.ref)
        # The machine that all share is not killed with one of them.
        assert await sandbox.infra_pid() == hypervisor
        assert await sandbox.state(two.ref) is TaskState.RUNNING

    with_pod(fake, main)


def test_both_versions_of_the_api_are_called_by_their_names(fake):
    fake.behaviour["start"] = "json"

    async def main(sandbox):
        assert fake.shim.version == 3
        services = {call.split("/")[0] for call in fake.calls() if not call.startswith("options ")}
        assert services == {"containerd.task.v3.Task"}

    with_pod(fake, main)


def test_a_guest_whose_shim_dies_ends_with_the_sandbox(fake):
    async def main(sandbox):
        task = await fake.run(sandbox)
        machine = ProcessIdentity.of(await sandbox.infra_pid())
        os.kill(fake.shim.process.pid, signal.SIGKILL)
        ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert "died" in ended.message
        fd = machine.open_pidfd() if machine.alive() else -1
        if fd >= 0:
            await trio.lowlevel.wait_readable(fd)
            os.close(fd)
        assert f"delete {fake.prefix} in {fake.ref.bundle}" in fake.calls()
        await sandbox.kill(task.ref, signal.SIGKILL, everything=True)
        await sandbox.delete(task.ref)
        assert any(call.startswith(f"delete {task.ref.id} ") for call in fake.calls())

    with_pod(fake, main)


def test_a_shim_that_signals_keep_stopped_is_given_up_with_its_guest(fake):
    fake.stalled_seconds = 0.2

    async def main(sandbox):
        task = await fake.run(sandbox)
        machine = ProcessIdentity.of(await sandbox.infra_pid())
        with kept_stopped(fake.shim.process.pid), trio.fail_after(20):
            ended = await sandbox.wait(task.ref)
            assert (ended.code, "died" in ended.message) == (255, True)
            await wait_dead(machine)
        assert not fake.shim.process.alive()
        await sandbox.delete(task.ref)

    with_pod(fake, main)


def test_a_shim_that_was_stopped_once_goes_on_with_its_guest(fake):
    fake.stalled_seconds = 0.2

    async def main(sandbox):
        task = await fake.run(sandbox)
        os.kill(fake.shim.process.pid, signal.SIGSTOP)
        with trio.fail_after(20):
            assert await sandbox.state(task.ref) is TaskState.RUNNING
        assert fake.shim.process.alive()
        await sandbox.kill(task.ref, signal.SIGTERM)
        assert (await sandbox.wait(task.ref)).code == 143
        await sandbox.delete(task.ref)

    with_pod(fake, main)


def test_the_death_of_the_machine_is_told_by_who_watches_it(fake):
    async def main(sandbox):
        task = await fake.run(sandbox)
        os.kill(await sandbox.infra_pid(), signal.SIGKILL)
        ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert "did not tell" in ended.message

    with_pod(fake, main)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("fails", NodedError, "does not want to"),
        ("nonsense", Unavailable, "not the address"),
        ("hangs", DeadlineExceeded, "start did not finish"),
    ],
)
def test_a_shim_that_does_not_start_is_an_error_with_its_words(fake, monkeypatch, how, kind, words):
    if how == "hangs":
        monkeypatch.setattr(shim_start, "START_SECONDS", 1.0)
    fake.behaviour["start"] = how

    async def main():
        with trio.fail_after(20), pytest.raises(kind, match=words):
            await fake.start()
        await fake.remove()
        await fake.remove()

    trio.run(main)


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("hang", DeadlineExceeded, "did not answer|took longer"),
        ("close", Unavailable, "closed the connection before it answered"),
        ("half", Unavailable, "in the middle of its answer"),
        ("garbage", Unavailable, "does not speak ttrpc"),
        ("huge", Unavailable, "announces 4294967295 bytes"),
        ("stray", Unavailable, "frame of type 2 for stream 3"),
        ("die", Unavailable, "closed the connection|went away"),
        ([7, "not you"], PermissionDenied, "not you"),
        ([2, "no space left on device"], NodedError, "free space"),
    ],
)
def test_a_shim_that_misbehaves_is_a_clear_error_and_is_removed(fake, how, kind, words):
    fake.virtual = False
    fake.behaviour["Create"] = how

    async def main():
        with trio.fail_after(20):
            with pytest.raises(kind, match=words):
                await run_short(fake)
            await fake.remove()
            await fake.remove()

    trio.run(main)


@pytest.mark.parametrize("how", ["hang", "die", [2, "no"]])
@pytest.mark.parametrize("method", ["Connect", "Start"])
def test_a_sandbox_or_task_that_does_not_start_is_removed(fake, method, how):
    fake.virtual = False
    fake.behaviour[method] = how

    async def main():
        with trio.fail_after(20):
            with pytest.raises(NodedError):
                await run_short(fake)
            await fake.remove()

    trio.run(main)


async def run_short(fake):
    sandbox = await fake.start()
    task = fake.task(deadline_seconds=0.5)
    await sandbox.create(task)
    await sandbox.start(task.ref)


@pytest.mark.parametrize("how", ["hang", "die", [9, "wrong state"]])
@pytest.mark.parametrize("method", ["Delete", "Kill", "Wait", "Shutdown"])
def test_a_shim_that_does_not_let_go_is_removed_all_the_same(fake, method, how):
    fake.behaviour[method] = how

    async def main(sandbox):
        await fake.run(sandbox)

    with_pod(fake, main)


@pytest.mark.parametrize("how", ["close", "garbage", "die", [5, "unknown"], [2, "no"]])
def test_a_wait_that_fails_ends_the_task_with_a_reason(fake, how):
    fake.behaviour["Wait"] = how

    async def main(sandbox):
        task = await fake.run(sandbox)
        with trio.fail_after(10):
            ended = await sandbox.wait(task.ref)
        assert ended.code == 255
        assert ended.message.startswith("the container was killed because ")

    with_pod(fake, main)


def test_an_impossible_state_is_an_error(fake):
    fake.behaviour["status"] = 99

    async def main(sandbox):
        task = await fake.run(sandbox)
        with pytest.raises(Unavailable, match="unknown state 99"):
            await sandbox.state(task.ref)

    with_pod(fake, main)


def test_many_calls_at_once_are_answered(fake, monkeypatch):
    monkeypatch.setattr(shim_service, "PROBE_SECONDS", 20.0)

    async def main(sandbox):
        task = await fake.run(sandbox)
        done = []

        async def ask():
            done.append(await sandbox.state(task.ref))

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert done == [TaskState.RUNNING] * 200

    with_pod(fake, main)


def test_what_a_handler_lacks_makes_it_unavailable_with_every_reason(fake):
    fake.check = lambda: [
        Finding("/dev/a", True),
        Finding("/dev/b", False, "load b"),
        Finding("c", False, "get c"),
    ]

    async def main():
        with pytest.raises(Unavailable, match="cannot run pods here: /dev/b: load b; c: get c"):
            await fake.runtime.features()
        fake._runtime, fake.check = None, list
        features = await fake.runtime.features()
        assert (features.version, features.needs_infra) == ("9.8.7", True)

    trio.run(main)


def test_a_missing_shim_is_named_with_its_package(fake):
    runtime = ShimRuntime(
        "x",
        ShimQuirks("containerd-shim-none-v2", "none"),
        ShimOptions(),
        RuntimeHost(PLAIN_HOST, fake.layout),
    )

    async def main():
        with pytest.raises(Unavailable, match=r"containerd-shim-none-v2.*install the package 'none'"):
            await runtime.features()
        with pytest.raises(Unavailable, match="install the package"):
            await runtime.start_sandbox(SandboxStart(fake.ref, None))
        await runtime.destroy_sandbox(fake.ref)

    trio.run(main)


def test_a_pod_whose_bundle_is_in_the_way_is_refused(fake):
    fake.virtual = False

    async def main():
        sandbox = await fake.start()
        task = fake.task()
        (task.ref.bundle / "stdout").write_text("")
        with pytest.raises(FailedPrecondition, match="in the way"):
            await sandbox.create(task)
        await fake.remove()

    trio.run(main)
