"""What noded knows stays with it: children get neither its environment nor its files, logs no secrets."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import grpc
import pytest

from tests.crash.programs import CNI_VERB, OCI_VERB, Stand
from tests.support import images
from tests.support.cni import plugin_path
from tests.support.daemon import NodedDaemon
from tests.support.processes import monitors
from tests.support.registry import PASSWORD, USER, Registry

pytestmark = pytest.mark.root

SECRET = {"NODED_TEST_SECRET": "do-not-tell-anybody"}
WRONG_PASSWORD = "opened by nobody 4711"
OCI_VERBS = ("create", "start", "exec", "state", "kill", "delete", "features")


def telling(directory: Path, name: str) -> str:
    """Shell code that writes down the environment and the descriptors of its process, then goes on."""
    return (
        f'tr "\\0" "\\n" </proc/$$/environ >>{directory}/{name}.environ\n'
        f"ls -l /proc/$$/fd | sed -n 's/.* -> //p' >>{directory}/{name}.fds"
    )


def descriptors(pid: int) -> set[str]:
    """What a process has open, but what everybody may have."""
    links = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.add(os.readlink(path))
        except FileNotFoundError:  # closed meanwhile
            continue
    return shared(links)


def shared(links: Iterable[str]) -> set[str]:
    """Without the null device, and without kinds of descriptors that are no names of one object."""
    return {link for link in links if link and link != "/dev/null" and not link.startswith("anon_inode:")}


def test_children_inherit_nothing_and_logs_tell_no_secret(tmp_path: Path) -> None:
    told = tmp_path / "told"
    told.mkdir()
    real = shutil.which("runc")
    assert real is not None
    runc = Stand(tmp_path / "runc-that-tells", Path(real), OCI_VERB)
    with Registry(tmp_path / "registry", private=True) as registry:
        image = registry.push(images.busybox_image(), "busybox", "1")
        daemon = NodedDaemon(
            tmp_path,
            environment=SECRET,
            insecure=[registry.host],
            settings={"runtimes": {"runc": {"type": "runc", "path": runc.path}}},
        )
        with daemon, daemon.client() as cri:
            bridge = Stand(daemon.cni_bin_dir / "bridge", plugin_path("bridge"), CNI_VERB)
            for verb in ("ADD", "DEL"):
                bridge.tell(verb, telling(told, f"bridge-{verb}"))
            for verb in OCI_VERBS:
                runc.tell(verb, telling(told, f"runc-{verb}"))
            with pytest.raises(grpc.RpcError):
                cri.pull(image, user=USER, password=WRONG_PASSWORD)
            cri.pull(image, user=USER, password=PASSWORD)
            config = daemon.pod_config(cri, pid="POD")
            pod = cri.run_pod(config)
            main = cri.container_config("main", image, ["sleep", "100000"], pid="POD")
            container = cri.run_container(pod, main, config)
            assert cri.exec(container, "echo", "alive").stdout == b"alive\n"
            own = descriptors(daemon.pid)
            assert any("noded.db" in name for name in own), "the daemon's own descriptors are not seen"
            pids = [*monitors(container), *monitors(pod), process_of(cri, container)]
            assert len(pids) >= 3
            for pid in pids:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                assert b"NODED_TEST_SECRET" not in environment, pid
                assert b"NOTIFY_SOCKET" not in environment, pid
                assert not descriptors(pid) & own, f"process {pid} has descriptors of noded"
            cri.remove_pod(pod)
            told_of = {path.stem for path in told.iterdir()}
            assert {"bridge-ADD", "bridge-DEL", "runc-create", "runc-start", "runc-exec"} <= told_of
            for path in told.iterdir():
                text = path.read_text()
                if path.suffix == ".environ":
                    assert not any(name in text for name in (*SECRET, "NOTIFY_SOCKET", "LISTEN_")), path
                else:
                    assert not shared(text.splitlines()) & own, path
            bridge.close()
        log = daemon.log.read_text()
    runc.close()
    assert "PullImage" in log
    for password in (PASSWORD, WRONG_PASSWORD):
        basic = base64.b64encode(f"{USER}:{password}".encode()).decode()
        assert password not in log
        assert basic not in log


def process_of(cri, container: str) -> int:
    return int(json.loads(cri.verbose_status(container).info["info"])["pid"])
