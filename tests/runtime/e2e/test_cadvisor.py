"""What cAdvisor inside a stock kubelet asks a runtime that it takes for CRI-O (container/crio/client.go)."""

from __future__ import annotations

import http.client
import json
import re
import socket
import sys
from pathlib import Path

import pytest

from tests.support.daemon import NodedDaemon

HOST = "registry.example"
CGROUPS = Path("/sys/fs/cgroup")
INFO = {"storage_driver": str, "storage_root": str, "storage_image": str}
CONTAINER = {
    "name": str, "pid": int, "image": str, "created_time": int, "labels": dict, "annotations": dict,
    "log_path": str, "root": str, "ip_address": str, "ip_addresses": list,
}  # fmt: skip


@pytest.fixture
def daemon(tmp_path, pushed):
    made = NodedDaemon(tmp_path, mirrors={HOST: pushed.host}, insecure=[pushed.host])
    made.settings["compat"] = {"cadvisor": True, "cadvisor_socket": made.state / "crio" / "crio.sock"}
    with made as running:
        yield running


class CadvisorClient(http.client.HTTPConnection):
    """Go's client of cAdvisor: HTTP/1.1 over the socket, Host "crio", no compression."""

    def __init__(self, path):
        super().__init__("crio")
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)

    def get(self, path):
        self.request("GET", path, headers={"User-Agent": "Go-http-client/1.1"})
        answer = self.getresponse()
        data = answer.read()
        self.close()
        return answer.status, json.loads(data) if answer.status == 200 else data.decode()


def cgroup_of(identity):
    """Names and processes of the cgroups of an ID, as a watcher of the file systems sees them."""
    found = [path for path in CGROUPS.rglob(f"*{identity}*") if path.is_dir()]
    processes = {int(pid) for path in found for pid in (path / "cgroup.procs").read_text().split()}
    return {path.name for path in found}, processes


def typed(value, fields):
    assert set(value) == set(fields)
    assert {key: type(value[key]) for key in fields} == fields
    return value


def test_kubelet_s_cadvisor_finds_labels_and_the_pod_s_network(daemon, cri, busybox):
    path = daemon.settings["compat"]["cadvisor_socket"]
    client = CadvisorClient(path)
    status, info = client.get("/info")
    assert status == 200
    typed(info, INFO)
    assert info["storage_driver"] not in ("overlay", "overlay2")  # it would look for DIR/diff

    labels = {
        "io.kubernetes.pod.name": "web", "io.kubernetes.pod.namespace": "default",
        "io.kubernetes.pod.uid": "u-1",
    }  # fmt: skip
    config = daemon.pod_config(cri, "web", uid="u-1", labels=labels)
    pod = cri.run_pod(config)
    request = cri.container_config(
        "main",
        busybox,
        ["sleep", "1000"],
        labels={**labels, "io.kubernetes.container.name": "main"},
        annotations={"io.kubernetes.container.restartCount": "3"},
    )
    container = cri.run_container(pod, request, config)

    status, found = client.get(f"/containers/{container}")
    assert status == 200
    typed(found, CONTAINER)
    assert found["labels"]["io.kubernetes.container.name"] == "main"
    assert found["annotations"] == {"io.kubernetes.container.restartCount": "3"}
    assert found["image"] == busybox
    assert found["log_path"] == cri.status(container).log_path
    assert found["created_time"] == cri.status(container).created_at
    assert found["name"] == "k8s_main_web_default_u-1_0"
    assert (Path(found["root"]) / "bin" / "busybox").exists()
    names, processes = cgroup_of(container)
    assert names == {f"crio-{container}.scope"}
    assert found["pid"] in processes

    status, sandbox = client.get(f"/containers/{pod}")
    assert status == 200
    typed(sandbox, CONTAINER)
    assert sandbox["labels"] == {**labels, "io.kubernetes.container.name": "POD"}
    assert sandbox["ip_address"] == cri.pod_ip(pod)
    names, processes = cgroup_of(pod)
    assert names == {f"crio-{pod}.scope", f"crio-conmon-{pod}.scope"}
    assert sandbox["pid"] in processes
    # What kubelet does with the names: the ID is between the last "-" and ".scope".
    assert re.sub(r"^.*-(.*)\.scope$", r"\1", f"crio-{pod}.scope") == pod
    devices = Path(f"/proc/{sandbox['pid']}/net/dev").read_text()
    assert "eth0:" in devices

    # The pid outlives the containers, so that cAdvisor, which keeps it, goes on counting.
    cri.remove(container)
    assert client.get(f"/containers/{pod}")[1]["pid"] == sandbox["pid"]
    assert Path(f"/proc/{sandbox['pid']}/net/dev").exists()
    assert client.get(f"/containers/{container}")[0] == 404
    assert client.get("/containers/" + "0" * 64)[0] == 404
    assert client.get(f"/containers/{pod[:12]}")[0] == 404
    assert client.get("/containers/../info")[0] == 404

    # A pod on the node's network does not count as the pod's own.
    host = cri.run_pod(daemon.pod_config(cri, network="NODE"))
    assert client.get(f"/containers/{host}")[1]["pid"] == 0

    # Without the key there is no socket; what was made with it is still known, and goes whole.
    daemon.settings["compat"]["cadvisor"] = False
    daemon.write_config()
    daemon.restart()
    assert not Path(path).exists()
    cri.stop("0" * 64)
    assert cri.pod_status(pod).status.state == cri.pb.SANDBOX_READY
    again = cri.run_container(pod, request, config)
    assert cgroup_of(again)[0] == {f"crio-{again}.scope"}
    later = cri.run_pod(daemon.pod_config(cri))
    assert all(name.startswith("noded-") for name in cgroup_of(later)[0])
    for one in (pod, host, later):
        cri.remove_pod(one)
    assert [cgroup_of(one) for one in (pod, host, later)] == [(set(), set())] * 3


def test_a_crio_that_is_there_is_not_pushed_aside(tmp_path, pushed):
    made = NodedDaemon(tmp_path, mirrors={HOST: pushed.host}, insecure=[pushed.host])
    path = made.state / "crio.sock"
    made.settings["compat"] = {"cadvisor": True, "cadvisor_socket": path}
    made.prepare()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with made as running, running.client() as cri:
            assert cri.pods() == []
            assert "another program listens" in running.log.read_text()
            assert path.exists()


_ASK = """\
import json, socket, sys
state = json.load(sys.stdin)
with socket.socket(socket.AF_UNIX) as client:
    client.connect(sys.argv[1])
    request = f"GET /containers/{state['id']} HTTP/1.1", "Host: crio", "Connection: close", "", ""
    client.sendall("\\r\\n".join(request).encode())
    answer = b"".join(iter(lambda: client.recv(65536), b""))
with open(sys.argv[2], "ab") as seen:
    seen.write(answer.partition(b"\\r\\n\\r\\n")[2] + b"\\n")
"""


def test_a_container_is_known_to_cadvisor_as_soon_as_its_cgroup_is_there(tmp_path, pushed, busybox):
    hooks, seen, script = tmp_path / "hooks", tmp_path / "seen", tmp_path / "ask.py"
    hooks.mkdir()
    script.write_text(_ASK)
    made = NodedDaemon(tmp_path, mirrors={HOST: pushed.host}, insecure=[pushed.host])
    path = made.state / "crio.sock"
    made.settings |= {"compat": {"cadvisor": True, "cadvisor_socket": path}, "hooks_dirs": [hooks]}
    # Asks while the runtime creates the container: its cgroup is there, the creation has not been answered.
    program = {"path": sys.executable, "args": ["python", str(script), str(path), str(seen)], "timeout": 20}
    document = {
        "version": "1.0.0", "hook": program, "when": {"always": True}, "stages": ["createRuntime"],
    }  # fmt: skip
    (hooks / "ask.json").write_text(json.dumps(document))
    with made as running, running.client() as cri:
        cri.pull(busybox)
        pod = running.pod_config(cri)
        sandbox = cri.run_pod(pod)
        config = cri.container_config("main", busybox, ["sleep", "1000"], labels={"of": "main"})
        cri.run_container(sandbox, config, pod)
        answers = [json.loads(line) for line in seen.read_text().splitlines()]
    assert answers[-1]["labels"] == {"of": "main"}
    assert all(typed(one, CONTAINER)["pid"] == 0 for one in answers)
