"""Real runtimes for generated specs: a busybox root directory, and one runtime per test."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from noded.host.facts import parse_kernel_release
from noded.model.container import ContainerConfig
from noded.model.host import CgroupDriver, CgroupMode, HostFacts
from noded.model.image import ImageConfig
from noded.model.pod import PodConfig, SandboxKey
from noded.model.runtime import RuntimeFeatures
from noded.spec.capabilities import KNOWN
from noded.spec.container import container_spec
from noded.spec.inputs import ContainerInputs, NamespacePaths
from noded.spec.user import resolve_user

CGROUPS = Path("/sys/fs/cgroup")
APPLETS = "sh cat chmod echo grep head hostname id ls mkdir mknod mount sleep stat touch"
FEATURES = RuntimeFeatures("test", recursive_read_only_mounts=True, user_namespaces=True, idmap_mounts=False)
POD = PodConfig(SandboxKey("default", "web", "uid-1", 0))
TIMEOUT_SECONDS = 60.0


def host_facts() -> HostFacts:
    status = Path("/proc/self/status").read_text()
    bounding = int(status.split("CapBnd:")[1].split()[0], 16)
    capabilities = frozenset(name for bit, name in enumerate(KNOWN) if bounding >> bit & 1)
    if (CGROUPS / "cgroup.controllers").exists():
        mode = CgroupMode.V2
        controllers = frozenset((CGROUPS / "cgroup.controllers").read_text().split())
        swap = any(CGROUPS.glob("*/memory.swap.max"))
    else:
        mode = CgroupMode.HYBRID if (CGROUPS / "unified").is_dir() else CgroupMode.V1
        controllers = frozenset(path.name for path in CGROUPS.iterdir())
        swap = (CGROUPS / "memory/memory.memsw.limit_in_bytes").exists()
    return HostFacts(
        cgroup_mode=mode,
        cgroup_driver=CgroupDriver.CGROUPFS,
        cgroup_controllers=controllers,
        kernel=parse_kernel_release(os.uname().release),
        architecture=platform.machine(),
        bounding_capabilities=capabilities,
        may_lower_oom_score_adj="CAP_SYS_RESOURCE" in capabilities,
        oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
        apparmor=False,
        selinux=False,
        boot_id="test",
        swap_accounting=swap,
    )


@dataclass
class Node:
    """One runtime with a state directory and a root file system of its own."""

    runtime: str
    directory: Path
    rootfs: Path
    host: HostFacts
    features: RuntimeFeatures = FEATURES
    _ids: list[str] = field(default_factory=list)
    _cgroups: list[str] = field(default_factory=list)

    @property
    def cgroups_path(self) -> str:
        """A new one each time."""
        self._cgroups.append(f"noded-spec-test-{uuid.uuid4().hex[:12]}")
        return f"/{self._cgroups[-1]}"

    def inputs(self, container: ContainerConfig, pod: PodConfig = POD, **more: Any) -> ContainerInputs:
        passwd, group = ((self.rootfs / "etc" / name).read_text() for name in ("passwd", "group"))
        return ContainerInputs(
            pod=pod,
            container=container,
            image=ImageConfig(),
            user=resolve_user(passwd, group, "", container.security),
            host=self.host,
            features=FEATURES,
            sandbox_id="5" * 64,
            container_id="c" * 64,
            rootfs=str(self.rootfs),
            cgroups_path=self.cgroups_path,
            hostname="web",
            namespaces=more.pop("namespaces", NamespacePaths()),
            **more,
        )

    def run(self, script: str, container: ContainerConfig | None = None, **more: Any) -> str:
        """Run a shell script in a container to its end and return its output."""
        config = container or ContainerConfig("main", 0, "image")
        config = ContainerConfig(
            **{name: getattr(config, name) for name in config.__slots__ if name != "command"},
            command=("/bin/sh", "-c", script),
        )
        return self.run_spec(container_spec(self.inputs(config, **more)).value)

    def run_spec(self, spec: Mapping[str, Any]) -> str:
        code, output = self.try_spec(spec)
        assert code == 0, output
        return output

    def try_spec(self, spec: Mapping[str, Any]) -> tuple[int, str]:
        """Run a container to its end, if it comes so far; return the exit code and what was said."""
        name, bundle = self._bundle(spec)
        done = self.call("run", "-b", str(bundle), name, check=False)
        return done.returncode, done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def start(self, spec: Mapping[str, Any]) -> tuple[str, int]:
        """Create and start a container; return its id and pid."""
        name, bundle = self._bundle(spec)
        pidfile = bundle / "pid"
        # A created container keeps the streams: pipes would never end.
        self.call("create", "-b", str(bundle), "--pid-file", str(pidfile), name, output=bundle / "log")
        self.call("start", name, output=bundle / "log")
        return name, int(pidfile.read_text())

    def call(
        self, *arguments: str, check: bool = True, output: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [*_wrapper(self.runtime), self.runtime, "--root", str(self.directory / "state"), *arguments]
        if output is None:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
            )
        else:
            with output.open("a") as stream:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=stream,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=TIMEOUT_SECONDS,
                )
        if check and done.returncode:
            text = output.read_text() if output else done.stdout + done.stderr
            raise AssertionError(f"{' '.join(arguments)}: exit {done.returncode}: {text}")
        return done

    def close(self) -> None:
        for name in reversed(self._ids):
            self.call("delete", "--force", name, check=False)
        for name in self._cgroups:
            left = [*CGROUPS.glob(name), *CGROUPS.glob(f"*/{name}")]
            assert not left, f"{self.runtime} left {left}"

    def _bundle(self, spec: Mapping[str, Any]) -> tuple[str, Path]:
        name = f"nodedtest{uuid.uuid4().hex[:12]}"
        bundle = self.directory / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(spec))
        self._ids.append(name)
        return name, bundle


def _wrapper(runtime: str) -> list[str]:
    """crun refuses to run beside an additional cgroup2 mount: hide it from crun alone."""
    if runtime != "crun" or not (CGROUPS / "unified").is_dir():
        return []
    script = f'mount --make-private {CGROUPS}; umount {CGROUPS}/unified; exec "$@"'
    return ["unshare", "-m", "--propagation", "unchanged", "sh", "-c", script, "sh"]


@pytest.fixture(params=["runc", "crun"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    runtime: str = request.param
    if shutil.which(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox (static) is not installed")
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "dev", "etc", "mnt", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in APPLETS.split():
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n")
    (rootfs / "etc/group").write_text("root:x:0:\nweb:x:1000:\nlogs:x:50000:web\n")
    for path in (tmp_path, rootfs):
        path.chmod(0o755)
    node = Node(runtime, tmp_path, rootfs, host_facts())
    try:
        yield node
    finally:
        node.close()
