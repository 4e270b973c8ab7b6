"""What is read of kubelet's files and of this very node."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noded.checks import facts, gather, rules
from noded.checks.gather import kubelet, node, storage
from noded.config import Config, NetworkConfig
from noded.errors import InvalidArgument
from noded.wire.yaml_subset import scalars

# As `kubeadm init` writes it.
KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
authentication:
  anonymous:
    enabled: false
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
cgroupDriver: systemd
clusterDNS:
- 10.96.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: "unix:///run/noded/noded.sock"  # noded's
failSwapOn: false
kind: KubeletConfiguration
logging:
  options:
    json:
      infoBufferSize: "0"
memorySwap: {}
runtimeRequestTimeout: 0s
"""


@pytest.fixture(autouse=True)
def no_kubelet(monkeypatch: pytest.MonkeyPatch) -> None:
    """None runs here, whatever else this machine does; its files are those of the tests."""
    monkeypatch.setattr(kubelet, "processes", lambda *names: [])


def test_scalars_at_the_top_are_read_and_all_else_is_skipped():
    assert scalars(KUBELET) == {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "cgroupDriver": "systemd",
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": "unix:///run/noded/noded.sock",
        "failSwapOn": "false",
        "kind": "KubeletConfiguration",
        "runtimeRequestTimeout": "0s",
    }
    assert scalars('{"failSwapOn": false, "maxPods": 110, "x": {"y": 1}}') == {
        "failSwapOn": "false",
        "maxPods": "110",
    }
    with pytest.raises(InvalidArgument, match="line 2"):
        scalars("a: b\nnot a mapping\n")
    with pytest.raises(InvalidArgument, match="not JSON"):
        scalars("{oh")


@given(st.text())
def test_scalars_of_anything_are_texts_or_one_clear_error(text):
    with suppress(InvalidArgument):
        assert all(isinstance(value, str) for value in scalars(text).values())


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][A-Za-z]{0,20}", fullmatch=True),
        st.text(st.characters(exclude_categories=["C", "Z"])),
    )
)
def test_quoted_scalars_come_back(mapping):
    assert scalars("".join(f"{key}: {json.dumps(value)}\n" for key, value in mapping.items())) == mapping


def test_flags_are_read_from_words_and_from_environment_files():
    words = [
        "--config=/k.yaml",
        "--v",
        "4",
        "--fail-swap-on",
        "--cgroup-driver=cgroupfs",
        "--cgroup-driver=systemd",
    ]
    assert kubelet.flags(words) == {
        "config": "/k.yaml", "v": "4", "fail-swap-on": "true", "cgroup-driver": "systemd"
    }  # fmt: skip
    text = """\
# KUBELET_X="--cgroup-driver=cgroupfs"
KUBELET_KUBEADM_ARGS="--container-runtime-endpoint=unix:///run/x.sock --pod-infra-container-image=p:1"
BROKEN="--a
KUBELET_EXTRA_ARGS=--node-ip=10.0.0.1
"""
    assert kubelet.environment_flags(text) == {
        "container-runtime-endpoint": "unix:///run/x.sock",
        "pod-infra-container-image": "p:1",
        "node-ip": "10.0.0.1",
    }


def test_a_kubelet_file_that_was_named_must_be_there(tmp_path):
    assert kubelet.look(tmp_path / "none").problem == "it does not exist"
    (tmp_path / "k").write_text(KUBELET)
    assert kubelet.look(tmp_path / "k").config["cgroupDriver"] == "systemd"


def node_with(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        file = root / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


UNIT = """
[Service]
ExecStart=/usr/bin/kubelet --v=2 \\
  --root-dir=/var/lib/kubelet
"""
KUBEADM = """
[Service]
Environment="KUBELET_CONFIG_ARGS=--config=/etc/kubelet.yaml --config-dir=/etc/kubelet.d" "OTHER=x"
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_CONFIG_ARGS $KUBELET_EXTRA_ARGS
"""


def test_kubelets_unit_environment_files_and_drop_ins_are_read_in_their_order(tmp_path):
    node_with(
        tmp_path,
        {
            "/usr/lib/systemd/system/kubelet.service": UNIT,
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": "[Service]\nEnvironment=A=--v=7\n",
            "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf": KUBEADM,
            "/var/lib/kubelet/kubeadm-flags.env": "KUBELET_KUBEADM_ARGS=--node-ip=10.0.0.1\n",
            "/etc/default/kubelet": "KUBELET_EXTRA_ARGS=--node-ip=10.0.0.2\n",
            "/etc/kubelet.yaml": "cgroupDriver: cgroupfs\nfailSwapOn: true\nruntimeRequestTimeout: 1m\n",
            "/etc/kubelet.d/20-b.conf": "cgroupDriver: systemd\n",
            "/etc/kubelet.d/10-a.conf": '{"cgroupDriver": "nothing", "failSwapOn": false}',
            "/etc/kubelet.d/10-deeper/z.conf": "runtimeRequestTimeout: 3m\n",
            "/etc/kubelet.d/30-c.yaml": "cgroupDriver: ignored\n",
        },
    )
    found = kubelet.look(None, root=tmp_path)
    assert found.problem == ""
    assert found.setting("cgroupDriver", "cgroup-driver") == "systemd"
    assert found.setting("failSwapOn", "fail-swap-on") == "false"
    assert found.setting("runtimeRequestTimeout", "runtime-request-timeout") == "3m"
    assert found.flags["node-ip"] == "10.0.0.2"
    assert found.flags["root-dir"] == "/var/lib/kubelet"
    assert found.flags["v"] == "2", "a drop-in of the same name in /etc takes the place of the packaged one"
    assert found.flag_files["node-ip"] == "/etc/default/kubelet"
    assert found.flag_files["config-dir"] == "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
    assert found.place("cgroupDriver", "cgroup-driver") == str(tmp_path / "etc/kubelet.d/20-b.conf")
    node_with(tmp_path, {"/etc/kubelet.d/40-d.conf": "{"})
    broken = kubelet.look(None, root=tmp_path)
    assert (broken.problem_path, broken.problem[:8]) == (
        str(tmp_path / "etc/kubelet.d/40-d.conf"),
        "not JSON",
    )


def test_a_node_without_kubelet_has_nothing_of_it(tmp_path):
    found = kubelet.look(None, root=tmp_path)
    assert (found.config_path, dict(found.config), dict(found.flags)) == ("", {}, {})


def test_a_directory_that_does_not_exist_is_judged_by_the_one_above_it(tmp_path):
    found = storage.look("root", tmp_path / "a" / "b", trial=False)
    assert not found.exists
    assert found.mode is None
    assert found.size_bytes > found.free_bytes > 0
    assert storage.look("root", tmp_path, trial=False).mode == tmp_path.stat().st_mode & 0o7777
    assert storage._tells_types(str(tmp_path)) is True


def test_limits_are_those_of_the_process_that_listens(tmp_path):
    path = tmp_path / "s"
    assert node.limits(path).of == "this shell"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert node.limits(path).of == "noded"
        assert node._listener(path) == os.getpid()
    assert node.limits(path).of == "this shell"


def test_a_whole_node_can_be_read_and_judged_without_root_or_daemon(tmp_path):
    config = dataclasses.replace(
        Config(), root=tmp_path, listen=tmp_path / "s", network=NetworkConfig(conf_dir=tmp_path / "none")
    )
    found = gather.collect(config)
    assert isinstance(found, facts.Facts)
    assert found.kernel.release == os.uname().release
    checks = {result.check for result in rules.judge(found)}
    assert {
        "kernel.version",
        "storage.overlay",
        "network.config",
        "daemon.running",
        "kubelet.config",
    } <= checks
    assert Path(found.root.path) == tmp_path
